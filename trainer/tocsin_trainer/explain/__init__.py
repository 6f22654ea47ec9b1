"""Why one window scores as it does: exactly, by Shapley values and by a local linear model, side by side.

| method  | says                                                             | adds up to                          |
|---------|------------------------------------------------------------------|-------------------------------------|
| `exact` | what each row and channel gives to the score                     | the score                           |
| `shap`  | what the score would lose without a part, over all orders        | the score less a typical window's   |
| `lime`  | slope of a linear model fitted to the score around the window    | nothing; R² says how far to trust it |

`exact` is the split that every alarm carries; the others ask the model as a black box, and so tell whether the rows
that a residual shows in are also those that cause it. All are in units of the threshold: ratio 1 is the limit.
"""
