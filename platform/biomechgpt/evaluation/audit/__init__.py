"""The audit: how far one model can be trusted, measured on people and questions that it was not trained on.

coverage      how often prediction sets and intervals hold the truth, over many resplits of participants
ood           how well movements unlike the training data are detected and refused
scope         which free-text questions are mapped to a task, and which are refused
explanations  whether explanations point at what an answer rests on
"""
