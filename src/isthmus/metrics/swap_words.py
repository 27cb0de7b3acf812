"""Words that can be swapped for others: COCO's categories, colours and numbers.

COCO (Lin et al., ECCV 2014) sorts its 80 categories into supercategories. A swap stays within one, as in FOIL
(Shekhar et al., ACL 2017), so that the wrong word fits the sentence. "person" has no sister and is never swapped.
"""

from __future__ import annotations

SUPERCATEGORIES: dict[str, tuple[str, ...]] = {
    "person": ("person",),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    "sports": (
        *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
        *("skateboard", "surfboard", "tennis racket"),
    ),
    "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    "food": (*("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),),
    "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
    "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
}

# What people call them. These are swapped; what is put in their place is always a category's own name.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "bicycle": ("bike",),
    "car": ("automobile",),
    "motorcycle": ("motorbike", "motor bike"),
    "airplane": ("plane", "aeroplane", "jetliner", "airliner"),
    "boat": ("sailboat", "rowboat", "motorboat"),
    "traffic light": ("stoplight", "stop light"),
    "fire hydrant": ("hydrant",),
    "bench": ("park bench",),
    "cat": ("kitten", "kitty"),
    "dog": ("puppy",),
    "horse": ("pony",),
    "sheep": ("lamb",),
    "bear": ("polar bear", "grizzly bear"),
    "backpack": ("rucksack",),
    "umbrella": ("parasol",),
    "handbag": ("purse",),
    "tie": ("necktie", "bow tie", "bowtie"),
    "sports ball": ("ball", "baseball ball", "soccer ball", "tennis ball"),
    "tennis racket": ("racket", "racquet", "tennis racquet"),
    "wine glass": ("wineglass",),
    "cup": ("mug",),
    "hot dog": ("hotdog",),
    "donut": ("doughnut",),
    "couch": ("sofa",),
    "potted plant": ("houseplant",),
    "dining table": ("table", "dinner table", "kitchen table"),
    "tv": ("television", "television set", "tv set"),
    "laptop": ("laptop computer",),
    "mouse": ("computer mouse",),
    "remote": ("remote control",),
    "keyboard": ("computer keyboard",),
    "cell phone": ("phone", "cellphone", "mobile phone", "smartphone", "smart phone"),
    "microwave": ("microwave oven",),
    "refrigerator": ("fridge",),
    "hair drier": ("hair dryer", "hairdryer", "blow dryer"),
}

# Words that say, or leave open, that something else is there too, so that its name might not be wrong.
HINTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("cyclist", "bicyclist"), ("bicycle",)),
    **dict.fromkeys(("biker", "rider"), ("bicycle", "motorcycle", "horse")),
    **dict.fromkeys(("jet", "aircraft"), ("airplane",)),
    **dict.fromkeys(("taxi", "cab", "van", "suv"), ("car", "truck")),
    **dict.fromkeys(("ship", "ferry", "canoe", "kayak"), ("boat",)),
    **dict.fromkeys(("vehicle", "traffic"), SUPERCATEGORIES["vehicle"]),
    **dict.fromkeys(("light",), ("traffic light",)),
    **dict.fromkeys(("sign",), ("stop sign",)),
    **dict.fromkeys(("animal", "creature", "calf"), SUPERCATEGORIES["animal"]),
    **dict.fromkeys(("bull", "ox", "cattle"), ("cow",)),
    **dict.fromkeys(("seagull", "duck", "goose", "parrot", "owl", "pigeon"), ("bird",)),
    **dict.fromkeys(("bag", "luggage", "baggage"), ("handbag", "backpack", "suitcase")),
    **dict.fromkeys(("ski", "skiing", "skier"), ("skis",)),
    **dict.fromkeys(("snowboarder", "snowboarding"), ("snowboard",)),
    **dict.fromkeys(("skateboarder", "skateboarding", "skater"), ("skateboard",)),
    **dict.fromkeys(("surfer", "surfing"), ("surfboard",)),
    **dict.fromkeys(("board",), ("snowboard", "skateboard", "surfboard")),
    **dict.fromkeys(("tennis",), ("tennis racket", "sports ball")),
    **dict.fromkeys(("baseball", "batter", "pitcher", "catcher"), ("baseball bat", "baseball glove", "sports ball")),
    **dict.fromkeys(("soccer", "football", "basketball", "volleyball"), ("sports ball",)),
    **dict.fromkeys(("bat",), ("baseball bat",)),
    **dict.fromkeys(("glove", "mitt"), ("baseball glove",)),
    **dict.fromkeys(("glass",), ("wine glass", "cup")),
    **dict.fromkeys(("silverware", "cutlery", "utensil"), ("fork", "knife", "spoon")),
    **dict.fromkeys(("dish",), ("bowl",)),
    **dict.fromkeys(("fruit", "food"), SUPERCATEGORIES["food"]),
    **dict.fromkeys(("vegetable", "veggie"), ("broccoli", "carrot")),
    **dict.fromkeys(("burger", "hamburger", "bagel"), ("sandwich",)),
    **dict.fromkeys(("furniture",), SUPERCATEGORIES["furniture"]),
    **dict.fromkeys(("plant", "flower"), ("potted plant",)),
    **dict.fromkeys(("desk",), ("dining table",)),
    **dict.fromkeys(("screen", "monitor"), ("tv", "laptop")),
    **dict.fromkeys(("computer",), ("laptop", "keyboard", "mouse")),
    **dict.fromkeys(("kitchen",), SUPERCATEGORIES["appliance"]),
    **dict.fromkeys(("bathroom", "restroom"), ("sink", "toilet")),
    **dict.fromkeys(("bedroom",), ("bed",)),
    **dict.fromkeys(("street", "road", "intersection"), ("car", "truck", "traffic light", "stop sign")),
    **dict.fromkeys(("bike",), ("motorcycle",)),
    **dict.fromkeys(("oven",), ("microwave",)),
    **dict.fromkeys(("microwave oven",), ("oven",)),
    **dict.fromkeys(("hot dog", "hotdog"), ("sandwich",)),
    **dict.fromkeys(("stove",), ("oven",)),
    **dict.fromkeys(("teddy", "stuffed animal"), ("teddy bear",)),
}

IRREGULAR: dict[str, str] = {
    "person": "people",
    "sheep": "sheep",
    "knife": "knives",
    "mouse": "mice",
    "calf": "calves",
    "goose": "geese",
    "ox": "oxen",
    **{name: name for name in ("skis", "scissors", "broccoli", "cattle")},
}
PLURAL_ONLY = frozenset({"skis", "scissors", "broccoli"})  # broccoli: as there is "some" of it, never "a" broccoli
UNCOUNTED = frozenset({"broccoli"})  # would not follow "two": swapped for others, never put in their place

# A category's name before one of these says what kind of thing the next word is, not that the category is there.
HEADS = frozenset(
    {
        *("station", "stop", "stops", "tracks", "track", "depot", "terminal", "driver", "ride", "rides", "race"),
        *("paper", "seat", "seats", "juice", "pie", "tree", "trees", "sauce", "slice", "slices", "peel", "peels"),
        *("house", "houses", "park", "shop", "store", "shelf", "shelves", "case", "cover", "cloth", "pad", "box"),
        *(
            "boxes",
            "pan",
            "cutter",
            "tower",
            "show",
            "lane",
            "rack",
            "dock",
            "ramp",
            "surfing",
            "boarding",
            "flying",
            "area",
        ),
    }
)

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "orange", "gray")
# Colours that people call by each other's name.
CLOSE: dict[str, frozenset[str]] = {
    "red": frozenset({"pink", "orange", "brown", "purple"}),
    "blue": frozenset({"purple", "green", "gray"}),
    "green": frozenset({"blue", "yellow"}),
    "yellow": frozenset({"orange", "green", "brown"}),
    "black": frozenset({"gray", "brown"}),
    "white": frozenset({"gray"}),
    "brown": frozenset({"red", "orange", "yellow", "black", "gray"}),
    "pink": frozenset({"red", "purple", "orange"}),
    "purple": frozenset({"blue", "pink", "red"}),
    "orange": frozenset({"red", "yellow", "brown", "pink"}),
    "gray": frozenset({"black", "white", "blue", "brown"}),
}

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def plural(name: str) -> str:
    """The plural of a noun of one word or more, such as "wine glasses"."""
    if name in IRREGULAR:
        return IRREGULAR[name]
    if name.endswith(("s", "sh", "ch", "x")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"
