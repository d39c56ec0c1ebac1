"""One network at a time: epochs of steps in one compiled loop, watched, kept on the way, on one device or several."""

from research.training.loop import train as train
from research.training.place import Trained as Trained
