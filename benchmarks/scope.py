"""Which questions in free words a model refuses: those out of scope that nobody was trained with, and new ways of
asking what it can answer.

    python benchmarks/scope.py [--bundle URI] [--trials 20]

Each question is asked about movements of held-out participants, as the server asks it: without saying which task it
is. One that is recognised is weighed as its task; any other the language model may refuse. The last line is JSON:
share refused of each list, `in_scope` (close to what is trained with), `freely` (as people might ask who never saw
that) and `out_of_scope`, and share recognised; `language_...` is what the language model would refuse by itself.
"""

import argparse
import json

import numpy as np

from biomechgpt import artifact, storage
from biomechgpt.dialogue.questions import read_tasks
from biomechgpt.dialogue.recognition import Recognizer
from biomechgpt.language import model as network
from biomechgpt.language.answer import Answerer
from biomechgpt.tasks import REFUSED, askable
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
"""Alike to phrasings that are trained with."""

FREELY = """
What is this person doing in the recording?
Which test are we looking at here: TUG, sit to stand, four square step, or something else?
Could you tell me what movement task was captured?
Name the activity.
Is this clip a walking trial or a different kind of exercise?
I lost the label for this trial, can you work out which task the subject was performing?
task type?
Please classify the motion into one of the standard functional assessments.
From the joint angles, would you say they're walking, standing up from a chair, or stepping over canes?
Identify the exercise being carried out by the participant.
Does this person move like someone with a disability or like a healthy control?
Is the subject able-bodied?
Would you judge these kinematics to be normal or pathological?
Patient or control?
Please tell me whether there is any mobility impairment here.
I'm trying to sort my data: does this recording belong in the healthy group or the clinical group?
Decide if the mover is impaired or unimpaired.
Can you see signs that something is wrong with how this individual moves, or do they seem perfectly healthy?
Any gait or movement deficit present, yes or no?
Do the joint angles suggest a person without physical limitations?
What condition does this patient have?
Which clinical diagnosis best explains the movement pattern: stroke, SCI, TBI or limb loss?
Please give me the most probable diagnosis.
Is this somebody with a lower-limb prosthesis, a stroke survivor, or a person with a brain or spinal cord injury?
underlying pathology?
Why does this individual move abnormally; what neurological or orthopaedic disorder is behind it?
State the patient's diagnostic category.
I'd like to know the medical reason this participant was referred to rehab. Any idea which disease or injury it is?
Based on the kinematics, to which patient population would you assign this subject?
Tell me what the person has been diagnosed with.
Is the patient using a cane, a walker, crutches, or nothing at all?
What walking aid do you think they have?
Which assistive device, if any, was used during the trial?
Please identify any mobility aid.
Does this person walk unaided or do they rely on some kind of support such as a rollator or stick?
Gait aid: which one?
Can you tell from the arm and trunk motion what they're holding on to for support?
Are they wearing a brace or orthosis, or carrying crutches?
Determine the type of ambulatory equipment this participant needed.
My notes don't mention equipment; what device was helping the subject get around here?
Has this prosthesis user had a fall in the last twelve months?
Faller or non-faller?
Do you think this amputee fell at any point over the past year?
Predict whether the participant reported falling within the previous 12 months.
For this person with a prosthetic leg, is there a recent history of falls?
Please assess if the patient has taken a tumble during the past year.
I'm wondering whether somebody who moves like this would have fallen since last year. What's your call?
Any falls in the prior year?
Would this lower-limb prosthesis wearer answer yes if I asked, "Did you fall in the past 12 months?"
Tell me the one-year fall status of this individual with limb loss.
How fast is this person walking?
What's the gait speed in metres per second?
Please estimate walking velocity from this clip.
gait velocity (m/s)?
Give me a number for how quickly the subject walks.
Could you work out the average forward speed over the walk?
At what pace, in m/s, does the patient move along the walkway?
I need the self-selected walking speed for my report, can you provide it?
Compute how many meters they cover each second while walking.
Is the walking speed closer to 0.5 or 1.2 m/s? Your best estimate, please.
What is the cadence?
How many steps does the person take per minute?
Estimate step rate in steps/min.
Could you count the stepping frequency for me and express it per minute?
cadence, steps per min pls
I'd like to know the step frequency during this walk.
If they kept this rhythm for sixty seconds, how many footfalls would there be?
Please report the number of steps each minute for this participant.
At what stepping rate is the individual walking?
Provide the subject's walking cadence.
How long did the timed up and go take?
What was the TUG time in seconds?
TUG score?
Please estimate how many seconds the patient needed to rise, walk three metres, turn, come back and sit down.
Can you give me this participant's Timed Up & Go duration?
Predict the TUG result.
I forgot to run the stopwatch for the up-and-go test; what time should I write down?
In how many seconds was the timed up-and-go completed?
Would you tell me the completion time for the TUG trial shown here?
Work out the stopwatch reading on this get-up-and-go test.
How many seconds did the four square step test take?
What is the FSST time?
Please provide the completion time of the Four Square Step Test.
FSST duration in s?
How quickly did the patient get through the four squares in the step test?
Estimate this person's four-square step test score in seconds.
I'd appreciate an estimate of how long the subject took to finish the FSST sequence, clockwise and back.
Calculate the time needed for the four square stepping task.
Could you predict what the stopwatch showed at the end of the FSST?
For my balance assessment form: time on the four square step test, please.
Describe the movement in a sentence or two.
Can you summarize what happens in this recording?
Please write a brief description of how this person moves.
Give me a short caption for this motion clip.
In plain words, what does the motion look like?
I can't view the video, so could you put into words what is going on?
Quick summary of the motion.
How would you describe this recording to a colleague?
Write a short narrative of the trial that I can paste into my notes.
Tell me about the movement captured here.
""".strip().splitlines()
"""Written by somebody who knew the ten kinds of questions and none of the phrasings that are trained with."""


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
    recognizer = Recognizer(tasks)
    result = {}
    lists = (("in_scope", IN_SCOPE), ("freely", FREELY), ("out_of_scope", refusal.held_out))
    for name, questions in lists:
        new = [question for question in questions if question not in known]
        recognised = [recognizer.task(question, askable(tasks, 1)) for question in new]
        refused: dict[str, int] = dict.fromkeys(new, 0)
        for movement in movements:
            for question, text in zip(new, answerer.generate([movement] * len(new), new), strict=True):
                refused[question] += refusal.parse(text) == REFUSED
        counts = np.array([refused[question] for question in new]) / len(movements)
        by_both = np.where([task is None for task in recognised], counts, 0.0)
        wrong = np.argsort(by_both if name == "out_of_scope" else -by_both, kind="stable")[:8]
        print(f"{name}: {len(new)} questions x {len(movements)} movements; most often wrong:")
        print("\n".join(f"  {by_both[i]:.2f} {new[i]}  ({recognised[i]})" for i in wrong), flush=True)
        result |= {
            name: round(float(by_both.mean()), 4),
            f"{name}_recognised": round(float(np.mean([task is not None for task in recognised])), 4),
            f"language_{name}": round(float(counts.mean()), 4),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
