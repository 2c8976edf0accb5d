"""The whole path, from recordings to a report: cohort, tokenizer, tokens, questions, base, model, evaluation."""

from biomechgpt.experiment.pipeline import PipelineSettings, run_pipeline
from biomechgpt.job import run_job

if __name__ == "__main__":
    run_job(PipelineSettings, run_pipeline)
