"""`python -m biomechgpt` is the console command."""

from biomechgpt.commands import main

main()
