"""The feedback lane's judgement: labels, reports and decisions in; links of the chain of thresholds out.

`rules` (what an installation allows) -> `answers` (which labels count, how good judges are), `silence` (whether
anybody answers) -> `ratchets` (what evidence says), `chain` (the links) -> `book` (what is in force, proposed or
held), `people` (what they decide) -> `processor` (all of it as a function of one log).
"""

from detectors.feedback.processor import Feedback
from detectors.feedback.rules import RATCHETS, Rules

__all__ = ["RATCHETS", "Feedback", "Rules"]
