"""Models over the air: a process of its own, which shares one folder with the agent.

```
 tocsin update   check ─► download ─► verify ─► smoke ─► shadow ─► swap ─► trial ─► commit, or roll back
                                                  offer.json │ ▲ verdict.json         │ ▲
 agent                                        scores with both, side by side     scores with the new one
```
Rule: neither waits for the other; the updater alone changes which model is the current one.
"""
