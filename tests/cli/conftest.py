from tests.helpers.reading import commands as commands
