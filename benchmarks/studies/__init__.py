"""Programs that publish something: peers, speed, reproductions, calibration, the whole catalogue."""
