"""placeholder"""


def measured(known, points):
    return ""


def write(known, points):
    pass
