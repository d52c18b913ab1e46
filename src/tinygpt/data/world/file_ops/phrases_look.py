"""How people ask to look around: pwd, ls, tree, cd and find.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a statement,
`terse` a note. Slots: {d} a directory as people mention it, {D} its bare name, {w} a bare file name, {x} an extension.
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
    "cd_dir": {
        "do": """
            go to {d}
            go into {d}
            change into {d}
            switch to {d}
            open {d}
            enter {d}
            cd into {d}
            change the current directory to {d}
            jump to {d}
            step into {d}
            take me to {d}
            make {d} the current directory
            set the working directory to {d}
            head over to {d}
            navigate to {d}
            hop into {d}
            """,
        "ask": """
            could we work in {d} now
            can I get into {d}
            may we switch over to {d}
            """,
        "say": """
            I want to be in {d}
            I need to work inside {d}
            we should be in {d}
            from now on we work in {d}
            I'd like {d} to be the current directory
            we continue in {d}
            """,
        "terse": """
            cd {d}
            into {d}
            to {d}
            goto {d}
            switch dir to {d}
            """,
    },
    "cd_up": {
        "do": """
            go up one level
            go back to the parent directory
            go to the folder above
            move up one folder
            change to the parent folder
            step out of this folder
            leave this directory
            take me one level up
            switch to the directory above this one
            climb up one directory
            return to the parent folder
            get out of this folder
            jump to the enclosing folder
            """,
        "ask": """
            can we go one folder up
            can I get to the parent directory
            could we leave this folder
            """,
        "say": """
            I want to be one level higher
            I need to get to the parent directory
            I'm done in this folder, so one level up now
            we should be in the folder above
            """,
        "terse": """
            cd ..
            up one level
            one up
            parent dir
            back up a folder
            level up
            """,
    },
    "find_name": {
        "do": """
            find {w}
            find the file {w}
            locate {w}
            look for {w}
            search for a file named {w}
            track down {w}
            find out where {w} is
            tell me where {w} is stored
            figure out which folder has {w} in it
            hunt for {w} in all the subfolders
            show me the location of {w}
            look everywhere below here for {w}
            """,
        "ask": """
            where is {w}
            where did I put {w}
            in which folder is {w}
            where can I find {w}
            which directory has {w} in it
            where on earth is {w}
            what's the path of {w}
            """,
        "say": """
            I can't find {w}
            I'm looking for {w}
            {w} must be somewhere in here
            I don't know where {w} ended up
            I lost {w} somewhere in these folders
            """,
        "terse": """
            find {w}
            locate {w}
            path of {w}
            where's {w}
            search {w}
            location of {w}
            """,
    },
    "find_ext": {
        "do": """
            find all {x} files
            find every file that ends in .{x}
            search for files with the extension {x}
            look for {x} files in all folders
            locate all the .{x} files
            give me the paths of all {x} files
            find anything with a .{x} ending
            track down every {x} file below here
            search the subfolders for .{x} files
            collect the paths of all .{x} files
            hunt down each file with a .{x} extension
            """,
        "ask": """
            where are the {x} files
            which .{x} files do I have, subfolders included
            are there any {x} files in these folders
            where did all my .{x} files go
            which files end in .{x}
            """,
        "say": """
            I need to find all the {x} files
            I want the paths of all .{x} files
            I'm looking for every file with the {x} extension
            I don't know where my {x} files are
            """,
        "terse": """
            find *.{x}
            all {x} files
            every .{x} file
            search *.{x}
            paths of all {x} files
            where are the .{x} files
            """,
    },
    "cd_it": {
        "do": """
            go into it
            cd into it
            switch to it
            change into that folder
            enter it
            step inside
            make it the current directory
            take me there
            jump into the new folder
            move inside it
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
