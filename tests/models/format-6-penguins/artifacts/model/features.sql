-- One row in, one row out. Culmens are in mm, flippers in mm / 10 and masses in g / 100,
-- so that all four numbers are of a similar size.
SELECT
  Island,
  CAST(CulmenLength AS FLOAT)       AS CulmenLength,
  CAST(CulmenDepth AS FLOAT)        AS CulmenDepth,
  CAST(FlipperLength AS FLOAT) / 10 AS FlipperScaled,
  CAST(BodyMass AS FLOAT) / 100     AS MassScaled,
  CAST(Species AS INT)              AS Species
FROM raw
