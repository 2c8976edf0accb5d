"""A plain server to compare with: FastAPI in one process generates the answers, question by question.

    python benchmarks/plain_server.py MODEL PORT

No checks, no probabilities, no limits, no records: as a script that somebody writes in an afternoon.
"""

import sys
from threading import Lock
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, UploadFile

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core import storage
from biomechgpt.language import network
from biomechgpt.prompts.encoding import Query
from biomechgpt.recordings import upload
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer


def main() -> None:
    model, port = sys.argv[1:]
    network.quiet()
    answerer = Answerer.load(model)
    tokenizer = MotionTokenizer.load(storage.join(model, "motion_tokenizer"))
    turn, app = Lock(), FastAPI()

    @app.post("/answers")
    def answers(recording: UploadFile, tasks: Annotated[str, Form()]) -> dict[str, str]:
        settings = upload.UploadSettings(rate_hz=tokenizer.frame_rate_hz)
        read = upload.read(recording.filename or "", recording.file.read(), settings)
        with turn:  # one model, one question after the other
            (motion,) = answerer.tokenize(tokenizer, [read.angles_rad], [read.joint_mask])
            found = {}
            for name in tasks.split(","):
                words = answerer.tasks[name].templates[0]
                (found[name],) = answerer.generate([Query([motion], "single", name, words)])
            return found

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")


if __name__ == "__main__":
    main()
