"""How people ask to look around: pwd, ls and tree.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {d} a directory as people mention it.
"""

PHRASES: dict[str, dict[str, str]] = {
    "pwd": {
        "do": """
            show me the current directory
            print the working directory
            tell me where I am
            tell me which folder I'm in
            give me the current path
            say which directory we are in
            print the full path of this folder
            display my current location
            check what folder this is
            report the path I'm working in
            remind me which directory I'm standing in
            """,
        "ask": """
            where am I
            which folder am I in
            what directory is this
            what's the current path
            where are we right now
            which directory are we working in
            what folder do I have open at the moment
            what's my working directory
            what is the name of the folder I'm in
            """,
        "say": """
            I lost track of which folder I'm in
            I need the path of the current directory
            I'd like to know where I am
            I have no idea which directory this is
            I forgot what folder we're in
            """,
        "terse": """
            pwd
            current dir
            current path
            print cwd
            path of this folder
            my location
            """,
    },
    "ls_here": {
        "do": """
            list the files here
            show me what's in this folder
            list everything in the current directory
            show the contents of this directory
            give me a list of the files in here
            tell me what files there are
            display what this folder contains
            print the names of the files here
            let me see what's in here
            list what we have in this directory
            show all the files and folders here
            take a look at what's in the current folder
            """,
        "ask": """
            what's in this folder
            which files are here
            what do we have in the current directory
            what files are there
            what does this directory contain
            is there anything in this folder
            what's in here
            """,
        "say": """
            I want to see the files in this folder
            I need a list of what's in the current directory
            I'd like to know what files are here
            I don't remember what's in this folder
            """,
        "terse": """
            ls
            files here
            list files
            contents of this folder
            dir listing
            what's here
            """,
    },
    "ls_dir": {
        "do": """
            list the files in {d}
            show me what's in {d}
            list everything inside {d}
            show the contents of {d}
            give me a list of the files in {d}
            tell me what {d} contains
            display the entries of {d}
            print the file names in {d}
            let me see what's inside {d}
            look inside {d}
            take a peek into {d}
            check what is stored in {d}
            tell me which files {d} holds
            """,
        "ask": """
            what's in {d}
            which files are in {d}
            what does {d} contain
            what is stored inside {d}
            is there anything in {d}
            what files do I have in {d}
            what did I put in {d}
            """,
        "say": """
            I want to see what's in {d}
            I need a listing of {d}
            I'd like to know which files are in {d}
            I forgot what {d} has in it
            """,
        "terse": """
            ls {d}
            contents of {d}
            list {d}
            files in {d}
            whats in {d}
            listing of {d}
            """,
    },
    "tree_here": {
        "do": """
            draw the tree of this folder
            show the whole directory tree
            show me the full folder structure here
            print everything below this folder as a tree
            display the hierarchy of the current directory
            give me a tree view of what's here
            show all files and subfolders as a tree
            print the structure of the current folder
            list this directory recursively as a tree
            map out this folder with all its subfolders
            let me see the tree of the current directory
            """,
        "ask": """
            what does the directory tree look like
            how is this folder organized, all levels included
            what is the full structure of the current directory
            what does the tree below this folder look like
            how are the folders here nested
            """,
        "say": """
            I want to see the whole tree
            I need the complete folder structure from here down
            I'd like an overview of all subfolders as a tree
            I need a picture of how the folders here are nested
            """,
        "terse": """
            tree
            folder structure
            directory tree here
            full tree
            tree of this dir
            show tree
            """,
    },
    "tree_dir": {
        "do": """
            draw the tree of {d}
            show the directory tree under {d}
            show me the full structure of {d}
            print everything below {d} as a tree
            display the hierarchy of {d}
            give me a tree view of {d}
            show all files and subfolders of {d} as a tree
            list {d} recursively as a tree
            map out {d} with all its subfolders
            let me see the tree inside {d}
            print the whole hierarchy that starts at {d}
            """,
        "ask": """
            what does the tree of {d} look like
            how is {d} organized, all levels included
            what is the full structure of {d}
            what does the hierarchy under {d} look like
            how are things nested inside {d}
            """,
        "say": """
            I want to see the whole tree of {d}
            I need the complete structure of {d} from top to bottom
            I'd like a tree overview of {d}
            I need to see how things are nested in {d}
            """,
        "terse": """
            tree {d}
            structure of {d}
            directory tree for {d}
            full tree of {d}
            {d} as a tree
            """,
    },
    "ls_it": {
        "do": """
            list what's there
            show me what's in there
            tell me what it contains
            list the files in it
            print what's inside
            show its contents
            look at what's in there
            give me the list of its files
            """,
    },
}
