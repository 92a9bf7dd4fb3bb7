"""`python -m tools.coverage`: is each line of a pure module run by the module's own unit tests?

A decision that only the tests of others run is one that no table states. Exit 1 if there is such a line, which is
printed, or if a test failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from coverage import Coverage, CoverageData

from tests.repo.test_layers import own_tests


class _Contexts:
    """Has each line be recorded with the file of the test that runs it."""

    def __init__(self, measured: Coverage) -> None:
        self.measured = measured

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.measured.switch_context(item.nodeid.partition("::")[0])


def _unrun(measured: Coverage, data: CoverageData, module: str, tests: list[str]) -> Iterator[str]:
    """Yield the lines of a module that none of these tests runs, as `file:line`; an import counts for each."""
    file, lines, _, _, _ = measured.analysis2(module)
    contexts = data.contexts_by_lineno(file)
    for line in lines:
        if not {"", *tests}.intersection(contexts.get(line, ())):
            yield f"{module}:{line}"


def main() -> int:
    """Run the tests in this process, and tell."""
    measured = Coverage(data_file=None, include=[*own_tests()], config_file=False)
    measured.set_option("run:core", "ctrace")  # the newer one records a line for the first test alone
    measured.start()
    files = sorted({file for tests in own_tests().values() for file in tests})
    status = pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[_Contexts(measured)])
    measured.stop()
    data = measured.get_data()
    unrun = [line for module, tests in own_tests().items() for line in _unrun(measured, data, module, tests)]
    for line in unrun:
        print(f"{line}: no test of {line.partition(':')[0]} runs it")
    return 1 if status or unrun else 0


if __name__ == "__main__":
    sys.exit(main())
