"""Recording: a ring of segments on disk, and snapshots of what was around an alarm.

```
any line ─ put ─►┌───────┐ every 0.5 s ┌─ ring/<stream>/000001-….seg  oldest first out: size, age, room on the disk
       snapshot ─►│ queue │────────────►│
                  └───────┘   fsync     └─ snapshots/<id>/<stream>.seg  before and after, with a bound of their own
```
Rules: a line never waits for the disk; what cannot be written is dropped and counted; alarms go on. After a power cut
or a kill at most the last second is missing.
"""

from tocsin.recorder.limits import RecorderLimits
from tocsin.recorder.recorder import Recorder, RecorderStatistics

__all__ = ["Recorder", "RecorderLimits", "RecorderStatistics"]
