"""What runs beside the broker: releases, roll-outs, the inbox, the console."""
