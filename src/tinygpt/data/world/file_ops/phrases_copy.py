"""How people ask to copy and delete: cp, rm and rmdir.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {f} and {g} what exists, as people mention it,
{d} a directory, {D} its bare name, {N} a bare new name.
"""

PHRASES: dict[str, dict[str, str]] = {
    "copy_as": {
        "do": """
            copy {f} to {N}
            make a copy of {f} called {N}
            duplicate {f} as {N}
            save a copy of {f} under the name {N}
            copy {f} and name the copy {N}
            create a duplicate of {f} named {N}
            clone {f} to {N}
            make a second version of {f} called {N}
            back up {f} as {N}
            keep a copy of {f} as {N}
            copy the text of {f} over to a new file {N}
            make {N} an exact copy of {f}
            produce a twin of {f} with the name {N}
            cp {f} to {N}
            """,
        "ask": """
            can I have a copy of {f} named {N}
            could I get a duplicate of {f} called {N}
            can there be a copy of {f} with the name {N}
            """,
        "say": """
            I need a copy of {f} called {N}
            I want a duplicate of {f} named {N}
            there should be a copy of {f} with the name {N}
            a backup of {f} should exist as {N}
            I'd like {f} copied to {N}
            I need {f} twice, the second one as {N}
            """,
        "terse": """
            cp {f} {N}
            copy {f} as {N}
            duplicate {f} as {N}
            backup of {f} as {N}
            copy of {f}: {N}
            """,
    },
    "copy_into": {
        "do": """
            copy {f} into {d}
            copy {f} to {d}
            put a copy of {f} in {d}
            place a copy of {f} inside {d}
            drop a copy of {f} into {d}
            duplicate {f} into {d}
            leave a copy of {f} in {d}
            send a copy of {f} to {d}
            make a copy of {f} in {d}
            store a copy of {f} in {d}
            place a duplicate of {f} in {d}
            give {d} its own copy of {f}
            cp {f} into {d}
            """,
        "ask": """
            can I have a copy of {f} in {d}
            could {f} be copied to {d}
            can there be a copy of {f} inside {d}
            """,
        "say": """
            I need a copy of {f} in {d}
            I want {f} copied into {d}
            there should be a copy of {f} in {d}
            {d} should get a copy of {f}
            a copy of {f} belongs in {d}
            I want {f} in {d} too, without moving the original
            """,
        "terse": """
            cp {f} to {d}
            copy {f} to {d}
            copy of {f} into {d}
            one copy of {f} in {d}
            duplicate {f} in {d}
            """,
    },
    "copy_into_it": {
        "do": """
            copy {f} into it
            put a copy of {f} in there
            copy {f} there
            drop a copy of {f} into it
            place a copy of {f} inside it
            duplicate {f} into that folder
            """,
    },
    "copy_dir": {
        "do": """
            copy {d} to {N} with everything in it
            make a copy of {d} called {N}
            duplicate {d} as {N}
            clone {d} to {N}
            copy the whole of {d} to {N}
            save a copy of {d} with all its files as {N}
            back up {d} as {N}
            create a full copy of {d} named {N}
            cp -r {d} to {N}
            copy all of {d} to a new folder {N}
            keep a second copy of {d} under the name {N}
            reproduce {d} with all files as {N}
            make {N} an exact copy of {d}
            """,
        "ask": """
            can I have a copy of {d} named {N}, files included
            could {d} be duplicated as {N}
            can there be a full copy of {d} called {N}
            """,
        "say": """
            I need a copy of {d} called {N}
            I want all of {d} duplicated as {N}
            there should be a full copy of {d} with the name {N}
            a backup of {d} should exist as {N}
            I'd like {d} copied with its contents to {N}
            """,
        "terse": """
            cp -r {d} {N}
            copy {d} as {N}
            duplicate {d} as {N}
            backup of {d} as {N}
            full copy of {d}: {N}
            clone {d} as {N}
            """,
    },
    "rm": {
        "do": """
            delete {f}
            remove {f}
            get rid of {f}
            erase {f}
            throw away {f}
            trash {f}
            wipe out {f}
            discard {f}
            throw {f} out
            rm {f}
            clear {f} away
            dispose of {f}
            """,
        "ask": """
            can {f} be deleted
            could {f} be removed
            can we drop {f} for good
            can you make {f} go away
            """,
        "say": """
            I don't need {f} anymore
            {f} can be deleted
            {f} has to go
            {f} should be removed
            I want {f} gone
            {f} is no longer needed, so it can go in the trash
            we can lose {f}
            """,
        "terse": """
            rm {f}
            delete {f}
            {f} can go
            del {f}
            remove {f}
            trash {f}
            """,
    },
    "rm_two": {
        "do": """
            delete {f} and {g}
            remove both {f} and {g}
            get rid of {f} and {g}
            erase {f} as well as {g}
            throw away {f} and {g}
            trash {f} and {g}
            """,
        "ask": """
            can {f} and {g} be deleted
            could both {f} and {g} be removed
            """,
        "say": """
            I don't need {f} and {g} anymore
            {f} and {g} can both go
            {f} and {g} should be deleted
            """,
        "terse": """
            rm {f} {g}
            delete {f}, {g}
            {f} and {g} can go
            """,
    },
    "rm_it": {
        "do": """
            delete it
            remove it
            get rid of it
            throw it away
            erase that file
            trash it
            """,
    },
    "rm_original": {
        "do": """
            delete the original
            remove the original
            get rid of the original file
            throw the old one away
            erase the source file
            """,
    },
    "rm_dir": {
        "do": """
            delete {d} and everything in it
            delete {d} with all its files
            remove {d} together with its contents
            get rid of {d} and all that's inside
            erase {d}, contents included
            throw away the whole of {d}
            wipe out {d} with everything below it
            trash {d} and its files
            rm -r {d}
            delete the entire directory {D}
            remove {d} completely, files and all
            clear out {d} for good, the folder as well
            destroy {d} and whatever is inside
            """,
        "ask": """
            can {d} be deleted with all its contents
            could {d} be removed, files and all
            can we drop {d} and everything inside
            """,
        "say": """
            I don't need {d} or anything in it
            {d} can be deleted with all it holds
            {d} has to go, contents and all
            I want {d} gone with everything inside
            everything in {d} is junk, and the folder itself should go too
            {d} and all its files should be removed
            """,
        "terse": """
            rm -rf {d}
            delete {d} and contents
            remove {d} with everything in it
            rm -r {d}
            {d} and all its files can go
            """,
    },
    "rmdir": {
        "do": """
            delete the empty folder {D}
            remove the empty directory {D}
            get rid of the empty folder {D}
            rmdir {d}
            remove {d}, it's empty
            delete {d} since nothing is in it
            clear away the empty directory {D}
            drop the unused empty folder {D}
            erase the empty folder called {D}
            take away the empty directory named {D}
            tidy up by removing the empty folder {D}
            throw out {D}, an empty folder
            """,
        "ask": """
            can the empty folder {D} be deleted
            could the empty directory {D} go
            can we remove {d} now that it's empty
            {d} is empty, so can it be removed
            """,
        "say": """
            I don't need the empty folder {D}
            {d} is empty and can be removed
            the empty directory {D} has to go
            there's nothing in {d}, so it should be deleted
            I want the empty folder {D} gone
            nothing is left in {d}, so it can go
            """,
        "terse": """
            rmdir {d}
            remove empty folder {D}
            delete empty dir {D}
            empty folder {D} can go
            rm empty dir {D}
            """,
    },
}
