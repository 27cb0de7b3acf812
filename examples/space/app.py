"""The web app as a Hugging Face Space; it runs on one's own machine unchanged: `python examples/space/app.py`."""

import os

from isthmus.app import launch

MODELS = [name.strip() for name in os.environ.get("ISTHMUS_MODELS", "mini").split(",") if name.strip()]
ON_A_SPACE = "SPACE_ID" in os.environ

if __name__ == "__main__":
    launch(MODELS, host="0.0.0.0" if ON_A_SPACE else "127.0.0.1", port=7860)
