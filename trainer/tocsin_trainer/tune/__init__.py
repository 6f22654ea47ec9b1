"""A search for better settings than those chosen from the data: `tocsin tune`.

```
space: a choice of each knob ─► blocks: fitted on two thirds of the time, judged on the rest, in turn ─► study, on disk
                                                    study ─► choice: within the budgets, if clearly better ─► asset.yaml
```
Rules: every figure is the converted model's, by the agent's own code; the default settings are always the first trial;
anomalies are made up, so a small difference means nothing: the default stays unless it is beaten clearly.
"""
