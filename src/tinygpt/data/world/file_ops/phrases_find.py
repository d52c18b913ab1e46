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
            walk into {d}
            jump over to {d}
            hop over to {d}
            move into {d}
            get into {d}
            bring me to {d}
            put me in {d}
            change directory to {d}
            cd to {d}
            go inside {d}
            step over to {d}
            dive into {d}
            proceed to {d}
            work from {d} from now on
            use {d} as the working directory
            """,
        "ask": """
            could we work in {d} now
            can I get into {d}
            may we switch over to {d}
            can we go to {d}
            could we move into {d}
            can we hop over to {d}
            may I step into {d}
            """,
        "say": """
            I want to be in {d}
            I need to work inside {d}
            we should be in {d}
            from now on we work in {d}
            I'd like {d} to be the current directory
            we continue in {d}
            I want to go to {d}
            I have to get into {d}
            let's go to {d}
            let's move over to {d}
            my next work is inside {d}, so we should go there
            {d} should be the working directory now
            """,
        "terse": """
            cd {d}
            into {d}
            to {d}
            goto {d}
            switch dir to {d}
            go {d}
            enter {d}
            chdir {d}
            jump {d}
            over to {d}
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
            walk up one directory
            hop up a level
            jump up one folder
            cd to the parent directory
            back out of this directory
            exit this folder
            go one directory higher
            bring me to the folder that contains this one
            ascend to the parent folder
            step back up to the folder above
            put me in the parent directory
            head up one level
            navigate to the enclosing directory
            """,
        "ask": """
            can we go one folder up
            can I get to the parent directory
            could we leave this folder
            can we step up a level
            could we go back to the folder above
            may we return to the parent directory
            can I get out of this directory
            """,
        "say": """
            I want to be one level higher
            I need to get to the parent directory
            I'm done in this folder, so one level up now
            we should be in the folder above
            I want out of this folder
            I'd like to go up a level
            let's go up one directory
            we need to be in the folder that contains this one
            I want to go back to the parent folder
            """,
        "terse": """
            cd ..
            up one level
            one up
            parent dir
            back up a folder
            level up
            go up
            up a dir
            folder above
            to the parent folder
            out of this dir
            one dir higher
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
            walk into it
            hop into that directory
            go inside it
            step into that folder
            change to that directory
            take me into it
            navigate into it
            use it as the working directory
            open that folder
            get into it
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
            spot {w} for me in these folders
            hunt down {w}
            pinpoint {w}
            seek out {w}
            discover where {w} is hiding
            dig up the path of {w}
            search through all folders for the file {w}
            scan the subfolders for a file called {w}
            let me know where {w} lives
            check which directory {w} is in
            work out where I saved {w}
            give me the path to {w}
            """,
        "ask": """
            where is {w}
            where did I put {w}
            in which folder is {w}
            where can I find {w}
            which directory has {w} in it
            where on earth is {w}
            what's the path of {w}
            whereabouts is {w}
            where did {w} go
            where does {w} live
            where is the file {w} hiding
            what folder did I save {w} in
            in what directory does {w} sit
            which subfolder holds {w}
            """,
        "say": """
            I can't find {w}
            I'm looking for {w}
            {w} must be somewhere in here
            I don't know where {w} ended up
            I lost {w} somewhere in these folders
            I need to find {w}
            I want to know where {w} is
            I've misplaced {w}
            I forgot which folder {w} is in
            I need the path to {w}
            """,
        "terse": """
            find {w}
            locate {w}
            path of {w}
            where's {w}
            search {w}
            location of {w}
            hunt for {w}
            where is {w}
            look for {w}
            which folder has {w}
            track down {w}
            file {w}, where
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
            hunt for {x} files in every subfolder
            spot all files with a name ending in .{x}
            search through all folders for {x} files
            scan this whole tree for .{x} files
            seek out each .{x} file in these folders
            look everywhere below here for files of type {x}
            tell me where all the {x} files are
            show me the paths of the files that end in .{x}
            dig up every .{x} file in the subfolders
            discover where the .{x} files are stored
            pick out all files with the .{x} extension, wherever they are
            """,
        "ask": """
            where are the {x} files
            which .{x} files do I have, subfolders included
            are there any {x} files in these folders
            where did all my .{x} files go
            which files end in .{x}
            where can I find the .{x} files
            in which folders are the {x} files
            which files have the extension {x}
            where do I keep my {x} files
            what .{x} files are there in all these folders
            """,
        "say": """
            I need to find all the {x} files
            I want the paths of all .{x} files
            I'm looking for every file with the {x} extension
            I don't know where my {x} files are
            I want to find every .{x} file
            I need to know where all the .{x} files are
            I lost track of my .{x} files in these folders
            I'd like the location of each {x} file
            """,
        "terse": """
            find *.{x}
            all {x} files
            every .{x} file
            search *.{x}
            paths of all {x} files
            where are the .{x} files
            find {x} files
            locate all .{x}
            *.{x} everywhere
            files ending in .{x}
            .{x} files, all folders
            look for .{x} files
            """,
    },
}
