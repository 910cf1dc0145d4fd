"""Django's test runner, which also writes what happened as JSON."""

import json
import os
from pathlib import Path

from django.test.runner import DiscoverRunner


class Runner(DiscoverRunner):
    def suite_result(self, suite, result, **options):
        failed = [*result.failures, *result.errors, *((test, "") for test in result.unexpectedSuccesses)]
        Path(os.environ["SUITE_RESULT"]).write_text(
            json.dumps(
                {
                    "ran": result.testsRun,
                    "expected": len(result.expectedFailures),
                    # Of a subtest, the test: which of its subtests fails first may differ between engines.
                    "failed": sorted({str(getattr(test, "test_case", test)) for test, _ in failed}),
                    "skipped": sorted((str(test), reason) for test, reason in result.skipped),
                }
            ),
            encoding="utf-8",
        )
        return super().suite_result(suite, result, **options)
