"""`dawnchorus run` as a script, for a cluster that is given a working directory and a command:

    ray job submit --address http://HEAD:8265 --working-dir . --no-wait -- \\
        python jobs/run.py configs/podcasts_s3.yaml input=s3://... output=s3://...

Arguments and exit codes are those of `dawnchorus run`. The workers' image has to hold the package and its
engine; credentials come from the workers' environment. Start it with python, not `uv run`, which makes Ray
rebuild the environment on every worker.
"""

from __future__ import annotations

import sys

from dawnchorus import cli

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]
    cli.main()
