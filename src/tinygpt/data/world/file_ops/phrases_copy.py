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
            replicate {f} as {N}
            save {f} again under the name {N}
            write a copy of {f} to {N}
            generate a copy of {f} and call that copy {N}
            store a backup of {f} under the name {N}
            set up {N} as a duplicate of {f}
            mirror {f} in a new file {N}
            make another copy of {f}, this one called {N}
            """,
        "ask": """
            can I have a copy of {f} named {N}
            could I get a duplicate of {f} called {N}
            can there be a copy of {f} with the name {N}
            could {f} be duplicated under the name {N}
            would you save {f} a second time as {N}
            """,
        "say": """
            I need a copy of {f} called {N}
            I want a duplicate of {f} named {N}
            there should be a copy of {f} with the name {N}
            a backup of {f} should exist as {N}
            I'd like {f} copied to {N}
            I need {f} twice, the second one as {N}
            a second copy of {f} should be named {N}
            I want to keep {f} and also have it as {N}
            what I need is a clone of {f} named {N}
            """,
        "terse": """
            cp {f} {N}
            copy {f} as {N}
            duplicate {f} as {N}
            backup of {f} as {N}
            copy of {f}: {N}
            clone {f} as {N}
            second copy of {f}, name {N}
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
            replicate {f} inside {d}
            save another copy of {f} into {d}
            add a copy of {f} to {d}
            clone {f} into {d}
            put a second copy of {f} in {d} and leave the original alone
            back up {f} into {d}
            deposit a copy of {f} in {d}
            """,
        "ask": """
            can I have a copy of {f} in {d}
            could {f} be copied to {d}
            can there be a copy of {f} inside {d}
            could I get a duplicate of {f} in {d}
            can {d} have a copy of {f} as well
            """,
        "say": """
            I need a copy of {f} in {d}
            I want {f} copied into {d}
            there should be a copy of {f} in {d}
            {d} should get a copy of {f}
            a copy of {f} belongs in {d}
            I want {f} in {d} too, without moving the original
            I'd like a duplicate of {f} inside {d}
            {d} is missing a copy of {f}
            {f} should stay where it is, with a copy in {d}
            """,
        "terse": """
            cp {f} to {d}
            copy {f} to {d}
            copy of {f} into {d}
            one copy of {f} in {d}
            duplicate {f} in {d}
            second copy of {f} for {d}
            {d} gets a copy of {f}
            backup {f} into {d}
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
            replicate {f} in there
            add a copy of {f} to it
            save a copy of {f} in the new folder
            clone {f} into it
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
            replicate {d} as {N}, contents included
            mirror {d} under the name {N}
            make a complete duplicate of {d}, call it {N}
            copy {d} recursively to {N}
            save everything in {d} again as a new folder {N}
            set up {N} as a clone of {d}
            take a full backup of {d} called {N}
            """,
        "ask": """
            can I have a copy of {d} named {N}, files included
            could {d} be duplicated as {N}
            can there be a full copy of {d} called {N}
            could I get a clone of {d} called {N}, contents and all
            would you back up all of {d} as {N}
            """,
        "say": """
            I need a copy of {d} called {N}
            I want all of {d} duplicated as {N}
            there should be a full copy of {d} with the name {N}
            a backup of {d} should exist as {N}
            I'd like {d} copied with its contents to {N}
            {d} should exist a second time as {N}, same contents
            I want to keep {d} and also have a complete copy called {N}
            what I need is a duplicate of {d} with the name {N}
            """,
        "terse": """
            cp -r {d} {N}
            copy {d} as {N}
            duplicate {d} as {N}
            backup of {d} as {N}
            full copy of {d}: {N}
            clone {d} as {N}
            replicate {d} as {N}
            mirror of {d}: {N}
            whole of {d} copied as {N}
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
            bin {f}
            toss {f}
            scrap {f}
            ditch {f}
            eliminate {f}
            toss {f} in the trash
            chuck {f} out
            wipe {f} from the disk
            """,
        "ask": """
            can {f} be deleted
            could {f} be removed
            can we drop {f} for good
            can you make {f} go away
            could you bin {f}
            would it be possible to erase {f}
            can {f} be thrown out
            """,
        "say": """
            I don't need {f} anymore
            {f} can be deleted
            {f} has to go
            {f} should be removed
            I want {f} gone
            {f} is no longer needed, so it can go in the trash
            we can lose {f}
            {f} is junk, so it should be deleted
            I'd like {f} erased
            there's no use for {f} anymore, it should be removed
            """,
        "terse": """
            rm {f}
            delete {f}
            {f} can go
            del {f}
            remove {f}
            trash {f}
            {f}: bin
            {f} no longer needed, delete
            {f} out, delete for good
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
            discard {f} and {g}
            toss out both {f} and {g}
            bin {f} and {g}
            scrap {f} along with {g}
            """,
        "ask": """
            can {f} and {g} be deleted
            could both {f} and {g} be removed
            would you get rid of both {f} and {g}
            """,
        "say": """
            I don't need {f} and {g} anymore
            {f} and {g} can both go
            {f} and {g} should be deleted
            I want both {f} and {g} gone
            """,
        "terse": """
            rm {f} {g}
            delete {f}, {g}
            {f} and {g} can go
            remove {f} + {g}
            bin {f} and {g} both
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
            discard it
            toss it
            bin that file
            scrap it
            """,
    },
    "rm_original": {
        "do": """
            delete the original
            remove the original
            get rid of the original file
            throw the old one away
            erase the source file
            discard the original
            bin the source file
            toss out the file it was copied from
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
            discard {d} along with all it contains
            scrap {d} and everything inside it
            bin all of {d}, the files as well as the folder
            toss out {d} with all of its contents
            delete {d} recursively
            remove every file in {d} and the folder with them
            eliminate {d} and all files below it
            """,
        "ask": """
            can {d} be deleted with all its contents
            could {d} be removed, files and all
            can we drop {d} and everything inside
            could you get rid of {d}, including everything inside it
            would it be possible to erase {d} with all that's in it
            """,
        "say": """
            I don't need {d} or anything in it
            {d} can be deleted with all it holds
            {d} has to go, contents and all
            I want {d} gone with everything inside
            everything in {d} is junk, and the folder itself should go too
            {d} and all its files should be removed
            I'd like {d} erased together with its files
            none of the files in {d} are needed, so remove the folder and all of them
            {d} should disappear with everything it contains
            """,
        "terse": """
            rm -rf {d}
            delete {d} and contents
            remove {d} with everything in it
            rm -r {d}
            {d} and all its files can go
            del {d} recursively
            bin {d}, files included
            erase {d} + contents
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
            discard the empty folder {D}
            bin the empty directory {D}
            scrap the folder {D}, which has nothing in it
            toss the empty directory called {D}
            eliminate the empty folder {D}
            remove {d}, there are no files in it
            throw away the empty directory {D}
            """,
        "ask": """
            can the empty folder {D} be deleted
            could the empty directory {D} go
            can we remove {d} now that it's empty
            {d} is empty, so can it be removed
            could you get rid of the empty directory {D}
            would it be possible to erase the empty folder {D}
            """,
        "say": """
            I don't need the empty folder {D}
            {d} is empty and can be removed
            the empty directory {D} has to go
            there's nothing in {d}, so it should be deleted
            I want the empty folder {D} gone
            nothing is left in {d}, so it can go
            I'd like the empty directory {D} removed
            {d} has no files in it, so it should go
            the folder {D} is empty, we have no use for it, so remove it
            """,
        "terse": """
            rmdir {d}
            remove empty folder {D}
            delete empty dir {D}
            empty folder {D} can go
            rm empty dir {D}
            del empty folder {D}
            bin empty dir {D}
            {d} is empty, remove
            """,
    },
}
