"""The built-in default data: synthetic participants with latent traits, and their movements.

participants  who is simulated, what they do, and which annotations are collected
activities    walking, sitting, standing and clinical tests
impairments   effects of impairments and assistive devices on the body
movement      joint angles of a body over time
protocol      numbers of participants and trials
"""

from biomechgpt.simulator.participants import COLUMNS, Participant, SimulatorSettings, participants, trials

__all__ = ["COLUMNS", "Participant", "SimulatorSettings", "participants", "trials"]
