"""The embedded default: synthetic people with latent traits, and how they move. Not people: see participants.

participants  who is simulated, what they do, and what is measured of it
activities    what a trial asks for
impairments   what impairments and assistive devices do to a body
movement      a body driven through time
"""

from biomechgpt.simulator.participants import COLUMNS, Participant, SimulatorSettings, participants, trials

__all__ = ["COLUMNS", "Participant", "SimulatorSettings", "participants", "trials"]
