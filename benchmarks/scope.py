"""Which questions in free words a model refuses: those out of scope that nobody was trained with, and new ways of
asking what it can answer.

    python benchmarks/scope.py [--bundle URI] [--trials 20]

Each question is asked about movements of held-out participants, as the server asks it: without saying which task it
is. The last line is JSON: share refused of either.
"""

import argparse
import json

from biomechgpt import artifact, storage
from biomechgpt.dialogue.questions import read_tasks
from biomechgpt.language import model as network
from biomechgpt.language.answer import Answerer
from biomechgpt.tasks import REFUSED
from biomechgpt.tokenizer import read_tokens

IN_SCOPE = """
What is this person doing here?
Tell me which activity you see.
Which exercise is being performed?
Is this walking or standing?
What sort of movement is it?
Which activity does the recording show?
What task is the participant doing?
Please name the movement.
Is there an impairment?
Does this person move normally?
Is this an able-bodied person?
Would you say that this gait is impaired?
Is the way this person moves impaired or not?
Do you see a mobility impairment in this motion?
Is the participant impaired?
Does the gait look impaired?
What diagnosis does this person have?
Which diagnosis is most likely?
What condition explains this movement?
Which medical condition does this participant have?
What is the diagnosis behind this gait?
Name the most likely condition.
Which clinical diagnosis would you give?
What is the likely cause of the impairment?
Is a walking aid being used?
What aid does this person walk with?
Which device does the participant use?
Does this person use a cane or a walker?
Name the walking aid.
What mobility device is used in this trial?
Is there an assistive device?
With which device is the person walking?
Has this person fallen?
Does the participant have a history of falls?
Did this person fall in the past year?
Any falls in the last twelve months?
Would you expect that this person has fallen?
Has the participant fallen recently?
Is there any history of falls?
Does this prosthesis user fall?
How fast does this person walk?
What is this participant's walking speed?
What is the gait speed of this person?
Give the speed in meters per second.
How many meters per second is this person walking?
At what speed is the person walking?
Estimate the walking speed.
What is the speed of this walk?
What is this participant's cadence?
How many steps does this person take per minute?
Give me the cadence of the walk.
What is the step rate?
How many steps per minute is this?
Estimate the step rate of this person.
At what cadence does this person walk?
What cadence was measured?
How long did the TUG take?
What is the time of this timed up and go?
How many seconds did the timed up and go take?
Give me the TUG time.
How long did the FSST take?
What time did the four square step test take?
How many seconds did the four square step test last?
Give me the FSST time in seconds.
""".strip().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", help="URI of a model artifact; by default the demo's")
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    network.quiet()
    uri = options.bundle or storage.read_json("results/demo/metrics.json")["model"]["uri"]
    bundle = artifact.load(uri, "model")
    tasks = read_tasks(bundle.uri)
    (refusal,) = [task for task in tasks.values() if task.kind == "refusal"]
    known = {text for task in tasks.values() for text in task.phrasings}
    answerer = Answerer(bundle.uri)
    table = read_tokens(bundle.input("tokens")).to_pandas()
    held_out = table[table["split"] == "test"].sort_values("trial")
    movements = [
        tokens.tolist() for tokens in held_out["tokens"].iloc[:: max(len(held_out) // options.trials, 1)]
    ]
    result = {}
    for name, questions in (("in_scope", IN_SCOPE), ("out_of_scope", refusal.held_out)):
        new = [question for question in questions if question not in known]
        refused: dict[str, int] = dict.fromkeys(new, 0)
        for movement in movements:
            for question, text in zip(new, answerer.generate([movement] * len(new), new), strict=True):
                refused[question] += refusal.parse(text) == REFUSED
        share = sum(refused.values()) / (len(new) * len(movements))
        wrong = sorted(new, key=lambda q: refused[q], reverse=name == "in_scope")[:8]
        print(
            f"{name}: {len(new)} questions x {len(movements)} movements, refused {share:.3f}; most often wrong:"
        )
        print("\n".join(f"  {refused[q] / len(movements):.2f} {q}" for q in wrong), flush=True)
        result[name] = round(share, 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
