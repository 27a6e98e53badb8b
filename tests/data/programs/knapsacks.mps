NAME          knapsacks
OBJSENSE
    MAX
ROWS
 N  COST
 L  R0
 L  R1
 L  R2
 L  R3
 L  R4
COLUMNS
    MARKER                 'MARKER'                 'INTORG'
    X0        COST      19
    X0        R0        25
    X0        R1        9
    X0        R2        12
    X0        R3        25
    X0        R4        20
    X1        COST      32
    X1        R0        19
    X1        R1        24
    X1        R2        1
    X1        R3        20
    X1        R4        17
    X2        COST      16
    X2        R0        15
    X2        R1        20
    X2        R2        1
    X2        R3        21
    X2        R4        8
    X3        COST      13
    X3        R0        8
    X3        R1        1
    X3        R2        4
    X3        R3        12
    X3        R4        10
    X4        COST      32
    X4        R0        9
    X4        R1        12
    X4        R2        1
    X4        R3        26
    X4        R4        21
    X5        COST      35
    X5        R0        2
    X5        R1        25
    X5        R2        20
    X5        R3        4
    X5        R4        18
    X6        COST      7
    X6        R0        3
    X6        R1        17
    X6        R2        16
    X6        R3        17
    X6        R4        15
    X7        COST      7
    X7        R0        1
    X7        R1        1
    X7        R2        19
    X7        R3        21
    X7        R4        10
    X8        COST      28
    X8        R0        6
    X8        R1        23
    X8        R2        8
    X8        R3        25
    X8        R4        23
    X9        COST      16
    X9        R0        24
    X9        R1        22
    X9        R2        18
    X9        R3        16
    X9        R4        12
    X10       COST      25
    X10       R0        19
    X10       R1        25
    X10       R2        23
    X10       R3        11
    X10       R4        10
    X11       COST      10
    X11       R0        27
    X11       R1        6
    X11       R2        12
    X11       R3        9
    X11       R4        26
    X12       COST      35
    X12       R0        15
    X12       R1        3
    X12       R2        14
    X12       R3        13
    X12       R4        8
    X13       COST      20
    X13       R0        18
    X13       R1        26
    X13       R2        29
    X13       R3        15
    X13       R4        7
    X14       COST      36
    X14       R0        29
    X14       R1        1
    X14       R2        24
    X14       R3        21
    X14       R4        21
    X15       COST      32
    X15       R0        22
    X15       R1        16
    X15       R2        29
    X15       R3        26
    X15       R4        19
    X16       COST      29
    X16       R0        19
    X16       R1        3
    X16       R2        12
    X16       R3        3
    X16       R4        2
    X17       COST      13
    X17       R0        16
    X17       R1        9
    X17       R2        20
    X17       R3        28
    X17       R4        3
    X18       COST      31
    X18       R0        17
    X18       R1        14
    X18       R2        28
    X18       R3        16
    X18       R4        11
    X19       COST      6
    X19       R0        28
    X19       R1        13
    X19       R2        19
    X19       R3        11
    X19       R4        25
    MARKER                 'MARKER'                 'INTEND'
RHS
    RHS       R0        322
    RHS       R1        270
    RHS       R2        310
    RHS       R3        340
    RHS       R4        286
RANGES
    RNG       R1        67
    RNG       R2        77
    RNG       R3        85
    RNG       R4        71
BOUNDS
 UP BND       X0        3
 UP BND       X1        3
 UP BND       X2        3
 UP BND       X3        3
 UP BND       X4        3
 UP BND       X5        3
 UP BND       X6        3
 UP BND       X7        3
 UP BND       X8        3
 UP BND       X9        3
 UP BND       X10       3
 UP BND       X11       3
 UP BND       X12       3
 UP BND       X13       3
 UP BND       X14       3
 UP BND       X15       3
 UP BND       X16       3
 UP BND       X17       3
 UP BND       X18       3
 UP BND       X19       3
ENDATA
