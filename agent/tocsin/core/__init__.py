"""What trainer and device share: resampling, windows, preprocessing, inference, scores, threshold, bundle.

Rules: numpy, the standard library and the TFLite runtime only; no clock; no I/O but reading and writing a bundle.
"""
