NAME          signed
ROWS
 N  COST
 L  R0
 G  R1
 L  R2
 G  R3
 E  SUM
COLUMNS
    MARKER                 'MARKER'                 'INTORG'
    X0        COST      -6
    X0        R0        1
    X0        R2        -4
    X0        R3        4
    X0        SUM       1
    X1        COST      -9
    X1        R0        -4
    X1        R1        2
    X1        R2        -3
    X1        SUM       1
    X2        COST      -4
    X2        R0        -4
    X2        R2        3
    X2        R3        1
    X2        SUM       1
    X3        COST      -3
    X3        R0        -2
    X3        R1        -1
    X3        R2        3
    X3        R3        4
    X3        SUM       1
    X4        COST      5
    X4        R0        -2
    X4        R1        -2
    X4        R2        -2
    X4        R3        -3
    X4        SUM       1
    X5        COST      -5
    X5        R0        -3
    X5        R1        -3
    X5        R2        3
    X5        R3        -2
    X5        SUM       1
    X6        COST      7
    X6        R1        2
    X6        R2        3
    X6        R3        -4
    X6        SUM       1
    X7        COST      -4
    X7        R1        -1
    X7        R3        3
    X7        SUM       1
    X8        COST      4
    X8        R0        4
    X8        R1        1
    X8        R2        -1
    X8        R3        -4
    X8        SUM       1
    X9        COST      2
    X9        R0        -4
    X9        R1        3
    X9        R2        4
    X9        R3        -3
    X9        SUM       1
    X10       COST      -9
    X10       R0        4
    X10       R1        4
    X10       R2        -4
    X10       R3        1
    X10       SUM       1
    X11       COST      -2
    X11       R0        3
    X11       R1        3
    X11       R2        -3
    X11       R3        -4
    X11       SUM       1
    MARKER                 'MARKER'                 'INTEND'
    FREE      COST      0.25
    FREE      R0        0.5
    FREE      SUM       -1
    BELOW     COST      -0.125
    BELOW     R1        1.5
    BELOW     SUM       0.5
    FIXED     COST      3
    FIXED     R2        2.25
RHS
    RHS       R0        2
    RHS       R1        -6
    RHS       R2        4
    RHS       R3        3
    RHS       SUM       0
    RHS       COST      -12.5
RANGES
    RNG       R0        9
    RNG       R1        9
BOUNDS
 LO BND       X0        -4
 UP BND       X0        1
 LO BND       X1        -5
 UP BND       X1        4
 LO BND       X2        -1
 UP BND       X2        3
 LO BND       X3        -1
 UP BND       X3        2
 LO BND       X4        -5
 UP BND       X4        1
 LO BND       X5        -5
 UP BND       X5        2
 LO BND       X6        -3
 UP BND       X6        2
 LO BND       X7        -5
 UP BND       X7        3
 LO BND       X8        -3
 UP BND       X8        1
 LO BND       X9        -5
 UP BND       X9        2
 LO BND       X10       -5
 UP BND       X10       3
 LO BND       X11       -1
 UP BND       X11       1
 FR BND       FREE
 MI BND       BELOW
 UP BND       BELOW     4
 FX BND       FIXED     -1.5
ENDATA
