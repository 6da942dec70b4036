"""Packaging: every value comes from settings.ini, which nbdev reads too."""

import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(HERE / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

decord = shlex.split(settings["decord_requirements"])
video = shlex.split(settings["video_requirements"])
train = shlex.split(settings["train_requirements"])
plot = shlex.split(settings["plot_requirements"])
ray = shlex.split(settings["ray_requirements"])
mteb = shlex.split(settings["mteb_requirements"])
repro = train + plot + shlex.split(settings["repro_requirements"])
docs = shlex.split(settings["docs_requirements"])
dev = shlex.split(settings["dev_requirements"])

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    author=settings["author"],
    keywords=settings["keywords"],
    url=settings["git_url"],
    packages=find_namespace_packages(include=["lift", "lift.*"]),
    package_data={"lift": ["py.typed", "*.json", "model_card.md", "weights/*/*", "data/lists/*"]},
    python_requires=f">={settings['min_python']}",
    install_requires=shlex.split(settings["requirements"]),
    extras_require={
        "decord": decord,
        "video": video,
        "train": train,
        "ray": ray,
        "mteb": mteb,
        "plot": plot,
        "repro": repro,
        "docs": docs,
        "dev": decord + video + repro + dev,  # the tests compare both decoders
    },
    entry_points={
        "console_scripts": ["lift=lift.cli:main"],
        "nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
