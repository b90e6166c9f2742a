"""The arithmetic behind examples/forecast.py: data, models, backtest and report.

Nothing in here knows redray. forecast.py is the part to read for how the work is spread over a cluster.
"""
