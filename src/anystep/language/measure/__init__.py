"""How close to the machine's limit does the engine run, and what does it hold?"""

from anystep.language.measure.engine import Forks as Forks
from anystep.language.measure.engine import Report as Report
from anystep.language.measure.engine import measure_engine as measure_engine
from anystep.language.measure.machine import Machine as Machine
from anystep.language.measure.machine import measure_machine as measure_machine
