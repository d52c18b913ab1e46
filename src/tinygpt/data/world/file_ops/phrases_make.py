"""How people ask for new folders and files: mkdir and touch.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {n} and {m} a new name, maybe with its place,
{N} a bare new path.
"""

PHRASES: dict[str, dict[str, str]] = {
    "mkdir": {
        "do": """
            create a folder called {n}
            make a folder named {n}
            create a directory {n}
            make a new directory called {n}
            add a folder {n}
            set up a folder with the name {n}
            create a new folder and call it {n}
            make me a folder called {n}
            add a new directory named {n}
            make an empty folder {n}
            start a new folder named {n}
            mkdir {n}
            """,
        "ask": """
            can I have a folder called {n}
            could I get a new directory {n}
            is it possible to have a folder named {n}
            may I get a directory called {n}
            """,
        "say": """
            I need a folder called {n}
            there should be a folder named {n}
            I want a new directory {n}
            we need a directory called {n}
            I'd like a folder with the name {n}
            I'm missing a folder called {n}
            a folder {n} has to exist
            """,
        "terse": """
            mkdir {n}
            new folder {n}
            new dir {n}
            folder {n}
            folder called {n}
            add dir {n}
            """,
    },
    "mkdir_nested": {
        "do": """
            create the nested folders {N}
            create the folder path {N}, parents included
            make the directory {N} and any missing parents
            create {N} with all the folders in between
            make the whole folder chain {N}
            build the directory path {N}
            create the full path {N} as folders
            set up the nested directories {N}
            mkdir -p {N}
            make a folder path {N} in one go
            create all the folders in {N}
            lay out the folders {N}, each inside the one before
            prepare the directory tree {N}
            """,
        "ask": """
            can I have the folder path {N}, with the parents made too
            could I get the nested folders {N}
            may I have all folders along {N}
            is it possible to get the whole folder chain {N} at once
            """,
        "say": """
            I need the nested folders {N}
            there should be a folder path {N}, all new
            we need the whole directory path {N}
            I want the folders {N}, one inside the other
            the folder chain {N} has to exist, parents too
            """,
        "terse": """
            mkdir -p {N}
            nested folders {N}
            new folder path {N}
            dirs {N} with parents
            folder chain {N}
            """,
    },
    "mkdir_two": {
        "do": """
            create two folders, {n} and {m}
            make the folders {n} and {m}
            create a folder {n} and another one called {m}
            add directories named {n} and {m}
            set up folders for {n} and {m}
            make directories {n} and {m}
            """,
        "say": """
            I need two folders called {n} and {m}
            there should be folders named {n} and {m}
            """,
        "terse": """
            mkdir {n} {m}
            new folders {n} and {m}
            two folders: {n}, {m}
            """,
    },
    "mkdir_it": {
        "do": """
            create a subfolder {n} in it
            make a folder called {n} inside it
            add a directory {n} in there
            put a subfolder named {n} in it
            make a new folder {n} in there
            """,
    },
    "touch": {
        "do": """
            create an empty file called {n}
            create a file named {n}
            make a new file {n}
            add an empty file {n}
            make a blank file called {n}
            start a new file with the name {n}
            create {n} as an empty file
            set up an empty file named {n}
            make me a file called {n}
            add a new file named {n}
            put down an empty file called {n}
            touch {n}
            """,
        "ask": """
            can I have an empty file called {n}
            could I get a new file named {n}
            may I have a blank file {n}
            is it possible to get a file called {n}
            """,
        "say": """
            I need an empty file called {n}
            there should be a file named {n}
            I want a new blank file {n}
            we need a file with the name {n}
            I'd like an empty file {n}
            a file called {n} is missing, so I need one
            """,
        "terse": """
            touch {n}
            new file {n}
            empty file {n}
            file called {n}
            blank file {n}
            new empty file {n}
            """,
    },
    "touch_two": {
        "do": """
            create two empty files, {n} and {m}
            make the files {n} and {m}
            create an empty file {n} and another one called {m}
            add empty files named {n} and {m}
            make blank files {n} and {m}
            """,
        "say": """
            I need two empty files called {n} and {m}
            there should be files named {n} and {m}
            """,
        "terse": """
            touch {n} {m}
            new files {n} and {m}
            two empty files: {n}, {m}
            """,
    },
    "touch_it": {
        "do": """
            create an empty file {n} in it
            make a file called {n} inside it
            add a file named {n} in there
            put an empty file {n} in it
            start a new file {n} in there
            """,
    },
}
