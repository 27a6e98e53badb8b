NAME          lots
ROWS
 N  COST
 E  B0
 L  S0
 E  B1
 L  S1
 E  B2
 L  S2
 E  B3
 L  S3
 E  B4
 L  S4
 E  B5
 L  S5
 E  B6
 L  S6
 E  B7
 L  S7
 E  B8
 L  S8
 E  B9
 L  S9
COLUMNS
    MAKE0     COST      1.5
    MAKE0     B0        1
    MAKE0     S0        1
    MARKER                 'MARKER'                 'INTORG'
    SET0      COST      40
    SET0      S0        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK0    COST      0.75
    STOCK0    B0        -1
    STOCK0    B1        1
    LATE0     COST      2.25
    LATE0     B0        1
    LATE0     B1        -1
    MAKE1     COST      1.5
    MAKE1     B1        1
    MAKE1     S1        1
    MARKER                 'MARKER'                 'INTORG'
    SET1      COST      40
    SET1      S1        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK1    COST      0.75
    STOCK1    B1        -1
    STOCK1    B2        1
    LATE1     COST      2.25
    LATE1     B1        1
    LATE1     B2        -1
    MAKE2     COST      1.5
    MAKE2     B2        1
    MAKE2     S2        1
    MARKER                 'MARKER'                 'INTORG'
    SET2      COST      40
    SET2      S2        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK2    COST      0.75
    STOCK2    B2        -1
    STOCK2    B3        1
    LATE2     COST      2.25
    LATE2     B2        1
    LATE2     B3        -1
    MAKE3     COST      1.5
    MAKE3     B3        1
    MAKE3     S3        1
    MARKER                 'MARKER'                 'INTORG'
    SET3      COST      40
    SET3      S3        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK3    COST      0.75
    STOCK3    B3        -1
    STOCK3    B4        1
    LATE3     COST      2.25
    LATE3     B3        1
    LATE3     B4        -1
    MAKE4     COST      1.5
    MAKE4     B4        1
    MAKE4     S4        1
    MARKER                 'MARKER'                 'INTORG'
    SET4      COST      40
    SET4      S4        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK4    COST      0.75
    STOCK4    B4        -1
    STOCK4    B5        1
    LATE4     COST      2.25
    LATE4     B4        1
    LATE4     B5        -1
    MAKE5     COST      1.5
    MAKE5     B5        1
    MAKE5     S5        1
    MARKER                 'MARKER'                 'INTORG'
    SET5      COST      40
    SET5      S5        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK5    COST      0.75
    STOCK5    B5        -1
    STOCK5    B6        1
    LATE5     COST      2.25
    LATE5     B5        1
    LATE5     B6        -1
    MAKE6     COST      1.5
    MAKE6     B6        1
    MAKE6     S6        1
    MARKER                 'MARKER'                 'INTORG'
    SET6      COST      40
    SET6      S6        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK6    COST      0.75
    STOCK6    B6        -1
    STOCK6    B7        1
    LATE6     COST      2.25
    LATE6     B6        1
    LATE6     B7        -1
    MAKE7     COST      1.5
    MAKE7     B7        1
    MAKE7     S7        1
    MARKER                 'MARKER'                 'INTORG'
    SET7      COST      40
    SET7      S7        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK7    COST      0.75
    STOCK7    B7        -1
    STOCK7    B8        1
    LATE7     COST      2.25
    LATE7     B7        1
    LATE7     B8        -1
    MAKE8     COST      1.5
    MAKE8     B8        1
    MAKE8     S8        1
    MARKER                 'MARKER'                 'INTORG'
    SET8      COST      40
    SET8      S8        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK8    COST      0.75
    STOCK8    B8        -1
    STOCK8    B9        1
    LATE8     COST      2.25
    LATE8     B8        1
    LATE8     B9        -1
    MAKE9     COST      1.5
    MAKE9     B9        1
    MAKE9     S9        1
    MARKER                 'MARKER'                 'INTORG'
    SET9      COST      40
    SET9      S9        -60
    MARKER                 'MARKER'                 'INTEND'
    STOCK9    COST      0.75
    STOCK9    B9        -1
    LATE9     COST      2.25
    LATE9     B9        1
RHS
    RHS       B0        7
    RHS       S0        0
    RHS       B1        6
    RHS       S1        0
    RHS       B2        10
    RHS       S2        0
    RHS       B3        18
    RHS       S3        0
    RHS       B4        15
    RHS       S4        0
    RHS       B5        10
    RHS       S5        0
    RHS       B6        24
    RHS       S6        0
    RHS       B7        19
    RHS       S7        0
    RHS       B8        17
    RHS       S8        0
    RHS       B9        23
    RHS       S9        0
BOUNDS
 BV BND       SET0
 UP BND       STOCK0    45
 UP BND       LATE0     20
 BV BND       SET1
 UP BND       STOCK1    45
 UP BND       LATE1     20
 BV BND       SET2
 UP BND       STOCK2    45
 UP BND       LATE2     20
 BV BND       SET3
 UP BND       STOCK3    45
 UP BND       LATE3     20
 BV BND       SET4
 UP BND       STOCK4    45
 UP BND       LATE4     20
 BV BND       SET5
 UP BND       STOCK5    45
 UP BND       LATE5     20
 BV BND       SET6
 UP BND       STOCK6    45
 UP BND       LATE6     20
 BV BND       SET7
 UP BND       STOCK7    45
 UP BND       LATE7     20
 BV BND       SET8
 UP BND       STOCK8    45
 UP BND       LATE8     20
 BV BND       SET9
 UP BND       STOCK9    45
 FX BND       LATE9     0
ENDATA
