from __future__ import annotations

import sys

from redray.cli import main

sys.exit(main())
