"""`python -m service.embedded` makes ahead what a start on an empty folder would have to make; see `template`."""

import subprocess
import sys

from service.embedded.faults import StackError
from service.embedded.template import make

try:
    make()
except (StackError, subprocess.CalledProcessError, OSError) as error:
    # A start makes everything from nothing then, and says what is wrong if that fails, too.
    sys.stderr.write(f"nothing was made ahead for `foretune up`: {error}\n")
