Integer infeasible - objective value 0.00000000
      0 c0                     0                       0
      1 c1                     0                       0
