"""The `mainspring` command with the size `t5-nano`, for tests that need a process of its own."""

import nano
from mainspring.cli import main

nano.add_size()
main()
