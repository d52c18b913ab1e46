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
            prepare a folder called {n}
            generate a directory named {n}
            open up a new folder {n}
            get a folder ready with the name {n}
            put in a new empty directory named {n}
            set me up with a directory called {n}
            establish a directory {n}
            whip up a folder called {n}
            build a fresh folder named {n}
            introduce a new folder called {n}
            """,
        "ask": """
            can I have a folder called {n}
            could I get a new directory {n}
            is it possible to have a folder named {n}
            may I get a directory called {n}
            can there be a new folder called {n}
            could we have a fresh directory named {n}
            would it be possible to add a folder {n}
            is there any chance of a new folder {n}
            """,
        "say": """
            I need a folder called {n}
            there should be a folder named {n}
            I want a new directory {n}
            we need a directory called {n}
            I'd like a folder with the name {n}
            I'm missing a folder called {n}
            a folder {n} has to exist
            what I need is a new folder named {n}
            I could use a directory called {n}
            it would be good to have a folder {n}
            a new directory named {n} would help
            I'm looking to add a folder called {n}
            we're short of a directory named {n}
            """,
        "terse": """
            mkdir {n}
            new folder {n}
            new dir {n}
            folder {n}
            folder called {n}
            add dir {n}
            directory {n}
            make dir {n}
            create folder {n}
            one fresh folder: {n}
            empty folder, name {n}
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
            set up the whole directory path {N}, creating what's missing
            generate the nested directories {N}
            add the folders {N} one inside another
            start a nested folder structure {N}
            create {N} along with whatever parent folders it needs
            make nested folders following the path {N}
            prepare {N}, and create the folders above it too
            add the complete folder path {N}
            put together the folder hierarchy {N}
            make every folder on the path {N}
            build {N}, parent directories and all
            """,
        "ask": """
            can I have the folder path {N}, with the parents made too
            could I get the nested folders {N}
            may I have all folders along {N}
            is it possible to get the whole folder chain {N} at once
            could every folder in {N} be created
            can there be a directory tree {N}, every level of it new
            would it be possible to add the nested path {N}
            could we have {N} with its parent directories
            """,
        "say": """
            I need the nested folders {N}
            there should be a folder path {N}, all new
            we need the whole directory path {N}
            I want the folders {N}, one inside the other
            the folder chain {N} has to exist, parents too
            I'd like a folder hierarchy {N}
            every folder along {N} should be created
            what I need is the directory tree {N}, built from the top
            none of the folders in {N} exist yet, but they should
            """,
        "terse": """
            mkdir -p {N}
            nested folders {N}
            new folder path {N}
            dirs {N} with parents
            folder chain {N}
            make dirs {N}, all levels
            folder tree {N}
            full dir path {N}, all new
            subfolders {N} incl. parents
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
            prepare two directories named {n} and {m}
            start two new folders, one {n} and one {m}
            generate the directories {n} and {m}
            add a pair of folders called {n} and {m}
            get two folders ready, {n} plus {m}
            """,
        "say": """
            I need two folders called {n} and {m}
            there should be folders named {n} and {m}
            I want both a folder {n} and a folder {m}
            we need two new directories, {n} and {m}
            """,
        "terse": """
            mkdir {n} {m}
            new folders {n} and {m}
            two folders: {n}, {m}
            dirs {n} and {m}
            add folders {n} + {m}
            """,
    },
    "mkdir_it": {
        "do": """
            create a subfolder {n} in it
            make a folder called {n} inside it
            add a directory {n} in there
            put a subfolder named {n} in it
            make a new folder {n} in there
            set up a directory {n} inside it
            start a subfolder called {n} in there
            give it a subfolder named {n}
            prepare a folder {n} within it
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
            generate an empty file called {n}
            prepare a blank file named {n}
            set up a new file, {n}, with nothing in it
            produce an empty file {n}
            open a fresh file called {n}
            make a zero-byte file named {n}
            get an empty file ready under the name {n}
            initialize a blank file {n}
            create a file {n} and leave it empty
            start {n} as a blank file
            """,
        "ask": """
            can I have an empty file called {n}
            could I get a new file named {n}
            may I have a blank file {n}
            is it possible to get a file called {n}
            can there be a new empty file called {n}
            could we have a blank file with the name {n}
            would it be possible to add an empty file {n}
            can you get me a fresh file {n}
            """,
        "say": """
            I need an empty file called {n}
            there should be a file named {n}
            I want a new blank file {n}
            we need a file with the name {n}
            I'd like an empty file {n}
            a file called {n} is missing, so I need one
            what I need is a new empty file named {n}
            I could use a blank file called {n}
            it would be good to have an empty file {n}
            {n} should exist as an empty file
            an empty file with the name {n} would help
            """,
        "terse": """
            touch {n}
            new file {n}
            empty file {n}
            file called {n}
            blank file {n}
            new empty file {n}
            make file {n}
            add file {n}
            create {n}, empty
            fresh file: {n}
            file {n}, no content
            """,
    },
    "touch_two": {
        "do": """
            create two empty files, {n} and {m}
            make the files {n} and {m}
            create an empty file {n} and another one called {m}
            add empty files named {n} and {m}
            make blank files {n} and {m}
            set up two blank files, {n} and {m}
            generate two empty files called {n} and {m}
            start the new files {n} and {m}
            prepare a pair of empty files named {n} and {m}
            """,
        "say": """
            I need two empty files called {n} and {m}
            there should be files named {n} and {m}
            I want both {n} and {m} as empty files
            we need two blank files, {n} and {m}
            """,
        "terse": """
            touch {n} {m}
            new files {n} and {m}
            two empty files: {n}, {m}
            blank files {n} + {m}
            both empty: {n} and {m}
            """,
    },
    "touch_it": {
        "do": """
            create an empty file {n} in it
            make a file called {n} inside it
            add a file named {n} in there
            put an empty file {n} in it
            start a new file {n} in there
            set up a blank file {n} inside it
            generate an empty file named {n} in there
            give it an empty file called {n}
            prepare a new file {n} within it
            """,
    },
}
