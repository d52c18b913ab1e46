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
            view {f}
            reveal the contents of {f}
            pull up {f}
            dump {f} on the screen
            print out all of {f}
            output the whole of {f}
            have a look at {f}
            show the entire text of {f}
            read out what {f} says
            put the contents of {f} on the screen
            let me read {f}
            inspect the text in {f}
            type out {f}
            """,
        "ask": """
            what's in {f}
            what does {f} say
            what is written in {f}
            can I see {f}
            what's inside {f}
            may I have a look at {f}
            what text is in {f}
            what did I write in {f}
            what does {f} contain
            can I read {f}
            what are the contents of {f}
            """,
        "say": """
            I want to read {f}
            I need to see what's in {f}
            I'd like to have a look at {f}
            I need the text of {f}
            I forgot what I wrote in {f}
            I want to see {f}
            I want the full contents of {f} on the screen
            I'd like to read all of {f}
            I don't remember what {f} says
            """,
        "terse": """
            cat {f}
            contents of {f}
            read {f}
            text of {f}
            open {f}
            whats in {f}
            show {f}
            view {f}
            full text of {f}
            whole of {f}
            print {f}
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
            view the first {k} lines of {f}
            dump the top {k} lines of {f}
            bring up the opening {k} lines of {f}
            pull up the first {k} lines of {f}
            peek at the first {k} lines of {f}
            read out the top {k} lines of {f}
            output only the first {k} lines of {f}
            let me see the initial {k} lines of {f}
            reveal the leading {k} lines of {f}
            give me {k} lines from the beginning of {f}
            """,
        "ask": """
            what are the first {k} lines of {f}
            how does {f} begin, first {k} lines only
            what do the top {k} lines of {f} say
            can I see the first {k} lines of {f}
            what's in the first {k} lines of {f}
            what do the opening {k} lines of {f} say
            what's at the top of {f}, first {k} lines
            may I peek at the first {k} lines of {f}
            which {k} lines does {f} start with
            """,
        "say": """
            I want to see the first {k} lines of {f}
            I only need the top {k} lines of {f}
            the first {k} lines of {f} are enough for me
            I'd like a preview of {f}, {k} lines long
            I just want the opening {k} lines of {f}
            I want a peek at the top {k} lines of {f}
            I need {k} lines from the start of {f}
            I need no more than the first {k} lines of {f}
            I'd like to read the initial {k} lines of {f}
            """,
        "terse": """
            head -{k} {f}
            first {k} lines of {f}
            top {k} lines of {f}
            head {f}, {k} lines
            {f}, first {k} lines
            {k} lines from the top of {f}
            opening {k} lines of {f}
            top of {f}, {k} lines
            start of {f}, {k} lines
            head -n {k} {f}
            preview {f}, {k} lines
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
            tally the lines in {f}
            tally up the words of {f}
            determine how many words are in {f}
            find out how many lines {f} has
            report the size of {f} in words and lines
            add up the words in {f}
            run a word count on {f}
            let me know how many characters {f} has
            figure out how long {f} is
            get me the number of lines in {f}
            """,
        "ask": """
            how many lines are in {f}
            how many words does {f} have
            how long is {f}
            how many characters are there in {f}
            what's the word count of {f}
            what is the number of lines in {f}
            how many lines does {f} have
            how many words are there in {f}
            what's the line count of {f}
            what is the length of {f}
            how many characters does {f} contain
            """,
        "say": """
            I need the word count of {f}
            I want to know how many lines {f} has
            I'd like to know how long {f} is
            I have to report the number of words in {f}
            I need to know the length of {f}
            I need to know how many words {f} has
            I want a line count for {f}
            I wonder how many words are in {f}
            I'd like the number of characters in {f}
            """,
        "terse": """
            wc {f}
            word count {f}
            line count of {f}
            number of words in {f}
            length of {f}
            count lines in {f}
            how many lines in {f}
            how many words in {f}
            tally words in {f}
            characters in {f}, how many
            number of lines in {f}
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
            search through {f} for {p}
            hunt for {p} in {f}
            locate {p} inside {f}
            spot the lines in {f} that say {p}
            pick out the lines of {f} that mention {p}
            bring up every line of {f} with {p} in it
            comb through {f} for any mention of {p}
            track down {p} in the text of {f}
            filter {f} for lines that contain {p}
            """,
        "ask": """
            does {f} mention {p}
            where does {p} appear in {f}
            which lines of {f} contain {p}
            is there a {p} in {f}
            what does {f} say about {p}
            does {p} come up anywhere in {f}
            where in {f} does it say {p}
            does {f} have {p} in it
            which lines in {f} mention {p}
            is {p} mentioned in {f}
            can I see the lines of {f} with {p}
            """,
        "say": """
            I need the lines in {f} that mention {p}
            I want to know if {p} is in {f}
            I'm looking for {p} in {f}
            somewhere in {f} it says {p}, and I want that line
            I want to see the lines with {p} in {f}
            I need to find {p} in {f}
            I can't spot {p} in {f}
            I want every line of {f} that says {p}
            """,
        "terse": """
            grep {p} {f}
            grep {p} in {f}
            lines with {p} in {f}
            {p} in {f}, which lines
            search {f} for {p}
            find {p} in {f}
            mentions of {p} in {f}
            {f}, lines with {p}
            scan {f} for {p}
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
            search through every file for {p}
            hunt for {p} in all my files
            locate the text {p} in the files here
            spot every line in these files that says {p}
            comb through all the files for {p}
            print each line in any file that mentions {p}
            pick out the files that contain {p}
            track down every mention of {p} in these files
            find out which file talks about {p}
            """,
        "ask": """
            which files contain {p}
            which file mentions {p}
            where is {p} mentioned in these files
            does any file here contain {p}
            in which file did I write {p}
            do any of my files mention {p}
            which of these files mention {p}
            where do my files say {p}
            what files have {p} in them
            is {p} mentioned in any file here
            which lines in all these files contain {p}
            """,
        "say": """
            I need to know which files mention {p}
            I'm looking for the text {p} in these files
            one of these files mentions {p}, and I need that line
            I want every line in this folder that says {p}
            I wrote {p} in some file, but I don't know which one
            I want to find {p} in any of these files
            I need all the lines that mention {p}, whatever file they are in
            I forgot which file says {p}
            I'd like to see every mention of {p} in this folder
            """,
        "terse": """
            grep {p}
            grep -r {p} .
            files with {p}
            lines with {p} in all files
            search all for {p}
            every mention of {p}
            find {p} in all files
            which files mention {p}
            mentions of {p}, all files
            scan everything for {p}
            {p} in any file
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
            view {f} and {g}
            bring up {f} and also {g}
            pull up both {f} and {g}
            dump the text of {f} and {g}
            let me see {f} and then {g}
            print out {f} followed by {g}
            """,
        "ask": """
            what's in {f} and in {g}
            what do {f} and {g} say
            can I see {f} and {g}
            what does {f} say and what does {g} say
            may I have a look at {f} and {g}
            what is written in {f} and in {g}
            """,
        "say": """
            I want to read {f} and {g}
            I need the text of both {f} and {g}
            I'd like to see {f} and {g}
            I need to look at {f} and {g}
            """,
        "terse": """
            cat {f} and {g}
            contents of {f} and {g}
            read {f}, {g}
            text of {f} and {g}
            show {f}, {g}
            view both {f} and {g}
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
            view it
            bring it up on the screen
            read it out
            dump its contents
            pull up its text
            let me have a look at it
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
            tally its words
            count the lines in it
            give me its line count
            tell me how many words it contains
            report its length
            """,
    },
}
