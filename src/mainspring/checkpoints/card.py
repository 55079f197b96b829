"""Model cards: the README.md of a saved checkpoint, with the YAML header that the hub reads."""

FILE = "README.md"


def plain(config, model):
    return "# x\n"
