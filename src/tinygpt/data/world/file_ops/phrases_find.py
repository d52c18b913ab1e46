"""How people ask to go somewhere or to find a file: cd and find.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {d} a directory as people mention it, {w} a bare
file name, {x} an extension.
"""

PHRASES: dict[str, dict[str, str]] = {
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
}
