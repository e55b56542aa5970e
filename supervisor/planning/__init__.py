"""Each app as the settings say it: environment, home, variables, what is to run. Made anew at a reload."""
