SELECT
  Island,
  CAST(CulmenLength AS FLOAT)       AS CulmenLength,
  CAST(CulmenDepth AS FLOAT)        AS CulmenDepth,
  CAST(FlipperLength AS FLOAT) / 10 AS FlipperScaled,
  CAST(BodyMass AS FLOAT) / 100     AS MassScaled,
  CAST(array_position(array('Biscoe', 'Dream', 'Torgersen'), Island) AS DOUBLE) AS IslandPlace,
  CAST(Species AS INT)              AS Species
FROM raw
