"""Everything about the package is in setup.cfg, but for what is made while it is built.

That is ``mycorrizal/_build.py``, which tells two commits of one version apart
(``mycorrizal --version``); it goes into what is built, never into the tree. And
it is the README for an index page, whose links lead to the project's pages.
"""

import configparser
import re
import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
TOOLS = runpy.run_path(str(ROOT / "mycorrizal" / "_runtime" / "host" / "build.py"))
BUILD = TOOLS["build"](ROOT / "mycorrizal")


def write_build(package):
    """Write the module, as a new file: the one of an sdist may be a link to the tree's."""
    path = Path(package) / TOOLS["FILE"]
    path.unlink(missing_ok=True)
    path.write_text(TOOLS["text_of"](BUILD), "utf-8")


class BuildPy(build_py):
    """Modules of a wheel."""

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            write_build(Path(self.build_lib) / "mycorrizal")


class Sdist(sdist):
    """An archive of the tree."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        write_build(Path(base_dir) / "mycorrizal")


def readme():
    """Return README.md with absolute links to the pages of this version."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    package = (ROOT / "mycorrizal" / "__init__.py").read_text("utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    pages = f"{config['metadata']['url']}/blob/v{version}/"
    return re.sub(r"\]\((?![a-z]+:|#)", f"]({pages}", (ROOT / "README.md").read_text("utf-8"))


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist}, long_description=readme())
