"""The whole path, from recordings to a report: cohort, tokenizer, tokens, questions, base, model, evaluation."""

from biomechgpt.core.job import run_job
from biomechgpt.experiment.pipeline import run_pipeline
from biomechgpt.experiment.settings import PipelineSettings

if __name__ == "__main__":
    run_job(PipelineSettings, run_pipeline)
