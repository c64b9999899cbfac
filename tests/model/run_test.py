#!/usr/bin/env python3
"""Tests run.py on models of a few lines: it must tell a violation from having given up."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))

# One process counts and AtRest looks at the sum.
MODEL = """
byte sum; bool small, even;
proctype Count() { do :: sum < LIMIT -> sum++ :: else -> break od }
proctype AtRest() {
#ifdef NEVER
  sum > LIMIT;
#endif
  timeout; small = sum < 9; assert(small); even = sum % 2 == 0; assert(even)
}
init { run Count(); run AtRest() }
"""

# Wider and deeper than any bound of the runner.
ENDLESS = """
int count; bool small;
proctype AtRest() { timeout; small = true; assert(small) }
active proctype Count() { do :: count++ od }
init { run AtRest() }
"""


class Run(unittest.TestCase):
    def run_model(self, text, expect, *flags):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "toy.pml")
            with open(path, "w", encoding="utf-8") as model:
                model.write(text)
            command = [sys.executable, os.path.join(HERE, "run.py"), path, "--expect", expect,
                       "--seconds-max", "5", *flags]
            return subprocess.run(command, text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, check=False)

    def assert_holds(self, expect, *flags):
        run = self.run_model(MODEL, expect, *flags)
        self.assertEqual(run.returncode, 0, run.stdout)

    def assert_does_not_hold(self, expect, *flags, model=MODEL, says=""):
        run = self.run_model(model, expect, *flags)
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIn(says, run.stdout)

    def test_a_model_without_violation_passes(self):
        self.assert_holds("pass", "LIMIT=4")

    def test_the_violated_property_is_told_by_its_name(self):
        self.assert_holds("even", "LIMIT=3")
        self.assert_holds("small", "LIMIT=9")

    def test_another_violation_than_expected_is_a_failure(self):
        self.assert_does_not_hold("even", "LIMIT=9", says="outcome=small")

    def test_a_violation_where_none_is_expected_is_a_failure(self):
        self.assert_does_not_hold("pass", "LIMIT=3", says="outcome=even")

    def test_a_missing_violation_is_a_failure(self):
        self.assert_does_not_hold("even", "LIMIT=4", says="outcome=pass")

    def test_a_search_that_never_comes_to_rest_proves_nothing(self):
        self.assert_does_not_hold("pass", "LIMIT=4", "NEVER", says="outcome=vacuous")

    def test_giving_up_is_neither_a_pass_nor_a_violation(self):
        for expect in ("pass", "small"):
            self.assert_does_not_hold(expect, model=ENDLESS, says="outcome=")

    def test_a_misspelt_flag_is_refused(self):
        self.assert_does_not_hold("pass", "LIMIT=4", "LIMITS=4", says="does not know LIMITS")


if __name__ == "__main__":
    if not shutil.which("spin"):
        print("skipped: the model checker spin is not installed (Debian package spin)")
        sys.exit(77)
    unittest.main()
