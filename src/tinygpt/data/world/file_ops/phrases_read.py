"""How people ask to read: cat, head, wc and grep.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {f} and {g} files as people mention them, {k} a
number, {p} a text to find.
"""

PHRASES: dict[str, dict[str, str]] = {
    "cat": {
        "do": """
            show me {f}
            show the contents of {f}
            print {f}
            display {f}
            read {f}
            open {f}
            read {f} to me
            let me see {f}
            dump the text of {f}
            print what's written in {f}
            show me what {f} says
            tell me what's in {f}
            bring up {f}
            give me the full text of {f}
            pull up the contents of {f}
            """,
        "ask": """
            what's in {f}
            what does {f} say
            what is written in {f}
            can I see {f}
            what's inside {f}
            may I have a look at {f}
            """,
        "say": """
            I want to read {f}
            I need to see what's in {f}
            I'd like to have a look at {f}
            I need the text of {f}
            I forgot what I wrote in {f}
            """,
        "terse": """
            cat {f}
            contents of {f}
            read {f}
            text of {f}
            open {f}
            whats in {f}
            """,
    },
    "head": {
        "do": """
            show the first {k} lines of {f}
            print the first {k} lines of {f}
            give me the top {k} lines of {f}
            show me just the first {k} lines of {f}
            display the opening {k} lines of {f}
            read me the first {k} lines of {f}
            show only the top {k} lines from {f}
            let me see how {f} starts, {k} lines will do
            print {k} lines from the start of {f}
            give me the beginning of {f}, {k} lines
            preview {f} with its first {k} lines
            show {k} lines from the top of {f}
            """,
        "ask": """
            what are the first {k} lines of {f}
            how does {f} begin, first {k} lines only
            what do the top {k} lines of {f} say
            can I see the first {k} lines of {f}
            what's in the first {k} lines of {f}
            """,
        "say": """
            I want to see the first {k} lines of {f}
            I only need the top {k} lines of {f}
            the first {k} lines of {f} are enough for me
            I'd like a preview of {f}, {k} lines long
            I just want the opening {k} lines of {f}
            """,
        "terse": """
            head -{k} {f}
            first {k} lines of {f}
            top {k} lines of {f}
            head {f}, {k} lines
            {f}, first {k} lines
            {k} lines from the top of {f}
            """,
    },
    "wc": {
        "do": """
            count the lines in {f}
            count the words in {f}
            tell me how long {f} is
            tell me how many words {f} has
            check how many lines are in {f}
            give me the word count of {f}
            give me the line count for {f}
            work out the number of words in {f}
            count the characters in {f}
            count how many lines {f} contains
            measure the length of {f} in words
            """,
        "ask": """
            how many lines are in {f}
            how many words does {f} have
            how long is {f}
            how many characters are there in {f}
            what's the word count of {f}
            what is the number of lines in {f}
            """,
        "say": """
            I need the word count of {f}
            I want to know how many lines {f} has
            I'd like to know how long {f} is
            I have to report the number of words in {f}
            I need to know the length of {f}
            """,
        "terse": """
            wc {f}
            word count {f}
            line count of {f}
            number of words in {f}
            length of {f}
            count lines in {f}
            """,
    },
    "grep_file": {
        "do": """
            search {f} for {p}
            look for {p} in {f}
            find {p} in {f}
            find the lines with {p} in {f}
            show the lines of {f} that contain {p}
            print every line in {f} that mentions {p}
            check whether {f} mentions {p}
            look through {f} for {p}
            scan {f} for {p}
            pull the lines with {p} out of {f}
            go through {f} and show me where it says {p}
            show me where {p} appears in {f}
            """,
        "ask": """
            does {f} mention {p}
            where does {p} appear in {f}
            which lines of {f} contain {p}
            is there a {p} in {f}
            what does {f} say about {p}
            does {p} come up anywhere in {f}
            """,
        "say": """
            I need the lines in {f} that mention {p}
            I want to know if {p} is in {f}
            I'm looking for {p} in {f}
            somewhere in {f} it says {p}, and I want that line
            """,
        "terse": """
            grep {p} {f}
            grep {p} in {f}
            lines with {p} in {f}
            {p} in {f}, which lines
            search {f} for {p}
            """,
    },
    "grep_here": {
        "do": """
            search all files for {p}
            look for {p} in all the files here
            find every file that contains {p}
            find the files that mention {p}
            show all lines with {p} in this folder
            search everything in this directory for {p}
            check which files mention {p}
            scan all the files below here for {p}
            go through all files and find {p}
            look in every file for the text {p}
            tell me which files have {p} in them
            """,
        "ask": """
            which files contain {p}
            which file mentions {p}
            where is {p} mentioned in these files
            does any file here contain {p}
            in which file did I write {p}
            do any of my files mention {p}
            """,
        "say": """
            I need to know which files mention {p}
            I'm looking for the text {p} in these files
            one of these files mentions {p}, and I need that line
            I want every line in this folder that says {p}
            I wrote {p} in some file, but I don't know which one
            """,
        "terse": """
            grep {p}
            grep -r {p} .
            files with {p}
            lines with {p} in all files
            search all for {p}
            every mention of {p}
            """,
    },
    "cat_two": {
        "do": """
            show me {f} and {g}
            print {f} and {g}
            read both {f} and {g}
            display {f} as well as {g}
            show the contents of {f} and of {g}
            open {f} and {g}
            let me read {f} and {g}
            """,
        "ask": """
            what's in {f} and in {g}
            what do {f} and {g} say
            can I see {f} and {g}
            """,
        "say": """
            I want to read {f} and {g}
            I need the text of both {f} and {g}
            """,
        "terse": """
            cat {f} and {g}
            contents of {f} and {g}
            read {f}, {g}
            """,
    },
    "cat_it": {
        "do": """
            show it to me
            print it
            read it back to me
            display its contents
            show me what it says
            open it
            let me see the result
            print the file
            """,
    },
    "wc_it": {
        "do": """
            count its lines
            count the words in it
            tell me how long it is
            give me its word count
            tell me how many lines it has
            check its length
            """,
    },
}
