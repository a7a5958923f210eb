"""A world on a virtual clock, driven by the real `decide`: what a campaign would cost and when it would end.

GPU jobs start cold, work at speeds of their own, are refused, fail, are preempted and billed by their offers' rules;
idle GPU workers share out what others have in hand, linger for a cold start's time and leave, as real ones do. Left
out: the store's latency, items that kill GPU workers one by one (a chunk with one takes longer), and network failures.
Seeded: the same world and seed give the same outcome.
"""

from gpu_jobs.forecast.simulator.campaign import Decide, simulate
from gpu_jobs.forecast.simulator.model import Draw, Outcome, Truth, Work, as_offered, lognormal
from gpu_jobs.forecast.simulator.workers import START

__all__ = ["START", "Decide", "Draw", "Outcome", "Truth", "Work", "as_offered", "lognormal", "simulate"]
