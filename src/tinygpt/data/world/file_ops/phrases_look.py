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
            reveal the current working directory
            bring up the path of the current folder
            let me know where I am
            find out what directory we're in
            dump the absolute path of where I am
            tell me what my working directory is
            name the folder I'm currently in
            spell out the whole path to the place I'm in
            output the present working directory
            confirm which folder we're sitting in
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
            in which directory do I find myself
            what path am I at
            whereabouts am I
            what is the full path to here
            which one is the current folder
            what's the name of the directory we're in
            where exactly do I stand in the file system
            can I see the current path
            """,
        "say": """
            I lost track of which folder I'm in
            I need the path of the current directory
            I'd like to know where I am
            I have no idea which directory this is
            I forgot what folder we're in
            I'm lost and want the current path
            I want to see the full path of this folder
            I'm not sure what directory I'm in
            I can't remember which folder this is
            it would help to see my current location
            """,
        "terse": """
            pwd
            current dir
            current path
            print cwd
            path of this folder
            my location
            where am i
            which folder is this
            working directory
            full path here
            cwd
            present dir
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
            view the contents of the current folder
            reveal what's sitting in this directory
            inspect what this folder holds
            peek inside this folder
            bring up a listing of this directory
            pull up the file list for the current folder
            dump the names of everything in here
            run through the files in this directory
            name all the files in the current folder
            scan this folder to see what files it has
            tell me everything that's in here
            output a listing of the current directory
            """,
        "ask": """
            what's in this folder
            which files are here
            what do we have in the current directory
            what files are there
            what does this directory contain
            is there anything in this folder
            what's in here
            what all is in the current directory
            can I see the files in this folder
            what have we got here
            which files and folders does this directory hold
            what things are lying around in here
            what is stored in the current folder
            what are the names of the files here
            """,
        "say": """
            I want to see the files in this folder
            I need a list of what's in the current directory
            I'd like to know what files are here
            I don't remember what's in this folder
            I want a listing of this directory
            I need to see what's here
            I'd like a look at the contents of this folder
            I have no clue which files are in here
            it would help to see all the file names here
            """,
        "terse": """
            ls
            files here
            list files
            contents of this folder
            dir listing
            what's here
            list current folder
            show files
            everything in here
            file names here
            whats in this dir
            current dir contents
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
            view the contents of {d}
            reveal what {d} holds
            inspect what's in {d}
            peek inside {d}
            bring up a listing of {d}
            pull up the file list for {d}
            dump the file names that are in {d}
            name all the files in {d}
            run through what {d} has in it
            output a listing of {d}
            have a look at what's inside {d}
            let me know what {d} has in it
            scan {d} to see what files it has
            """,
        "ask": """
            what's in {d}
            which files are in {d}
            what does {d} contain
            what is stored inside {d}
            is there anything in {d}
            what files do I have in {d}
            what did I put in {d}
            what all is in {d}
            can I see the files in {d}
            what have we got in {d}
            what's kept in {d}
            which files and folders does {d} hold
            what are the names of the files in {d}
            what sits inside {d}
            """,
        "say": """
            I want to see what's in {d}
            I need a listing of {d}
            I'd like to know which files are in {d}
            I forgot what {d} has in it
            I want a list of everything in {d}
            I need to know what {d} contains
            I'd like a look at the contents of {d}
            I have no clue what's stored in {d}
            I don't remember which files I put in {d}
            """,
        "terse": """
            ls {d}
            contents of {d}
            list {d}
            files in {d}
            whats in {d}
            listing of {d}
            show files in {d}
            {d} contents
            dir {d}
            whats inside {d}
            file names in {d}
            everything in {d}
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
            outline the whole folder hierarchy here
            bring up the directory tree
            pull up a tree of everything in here
            dump the entire tree from here down
            sketch the structure of this directory
            reveal how the folders here are nested
            render the current folder as a tree
            view this directory as a tree
            lay out the folder structure below this directory
            give me an overview of all subfolders at every level
            unfold this folder as a tree, all the way down
            """,
        "ask": """
            what does the directory tree look like
            how is this folder organized, all levels included
            what is the full structure of the current directory
            what does the tree below this folder look like
            how are the folders here nested
            can I see the tree of this folder
            how do the folders and subfolders here fit together
            what does the whole hierarchy here look like
            what's the layout of this folder, subfolders and all
            how is everything nested from here down
            """,
        "say": """
            I want to see the whole tree
            I need the complete folder structure from here down
            I'd like an overview of all subfolders as a tree
            I need a picture of how the folders here are nested
            I'd like to see the folder hierarchy here
            I want an outline of all the folders below this one
            I want this directory drawn as a tree
            I need a tree view of the current folder
            """,
        "terse": """
            tree
            folder structure
            directory tree here
            full tree
            tree of this dir
            show tree
            folder hierarchy
            tree view
            tree from here down
            outline of all subfolders
            this folder as a tree
            whole dir structure
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
            outline the whole hierarchy of {d}
            bring up the directory tree of {d}
            pull up a tree of everything in {d}
            dump the entire tree of {d}
            sketch the structure of {d}
            reveal how the folders in {d} are nested
            render {d} as a tree
            view {d} as a tree
            lay out the folder structure below {d}
            give me an overview of {d} with every level of subfolders
            unfold {d} as a tree, all the way down
            """,
        "ask": """
            what does the tree of {d} look like
            how is {d} organized, all levels included
            what is the full structure of {d}
            what does the hierarchy under {d} look like
            how are things nested inside {d}
            can I see the tree of {d}
            how do the folders inside {d} fit together
            what does the whole structure under {d} look like
            what's the layout of {d}, subfolders and all
            how is everything nested from {d} down
            """,
        "say": """
            I want to see the whole tree of {d}
            I need the complete structure of {d} from top to bottom
            I'd like a tree overview of {d}
            I need to see how things are nested in {d}
            I'd like to see the folder hierarchy of {d}
            I want an outline of all the folders below {d}
            I want {d} drawn as a tree
            I need a tree view of {d}
            """,
        "terse": """
            tree {d}
            structure of {d}
            directory tree for {d}
            full tree of {d}
            {d} as a tree
            tree view of {d}
            hierarchy of {d}
            folder structure under {d}
            outline of {d} with all subfolders
            whole dir structure of {d}
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
            view its contents
            peek inside
            bring up a listing of it
            inspect what it holds
            tell me which files are in there
            display what's inside it
            let me see what files it has
            check what is in there
            """,
    },
}
