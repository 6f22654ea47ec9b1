"""A virtual plant: a motor, a bearing, a centrifugal pump and a valve, by simple physics, with faults and labels.

```
schedule ─ mode, valve ─► process (ODEs, 10 Hz) ─ speed, flow ─► vibration (amplitudes; samples where they are wanted)
faults ───── severity ──►      │                                    │
                               └──────────► sensors (noise, faults) ┴─► Step ─► CSV, Modbus, OPC UA, serial, MQTT
```
Rules: the same seed gives the same samples; a fault changes what it acts on and nothing else, so that a run with a
fault equals the run without it up to its start. Numbers are those of a plausible 11 kW pump.
"""

from tocsin.simulate.faults import Fault, parse_fault
from tocsin.simulate.plant import Plant, Step

__all__ = ["Fault", "Plant", "Step", "parse_fault"]
