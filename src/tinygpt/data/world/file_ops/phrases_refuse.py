"""Requests that no file tool can serve, by what they ask for, with the words of the refusal.

Each key completes "I can't ... here.". `do` fits after "please", `other` stands as it is.
Slots: {f} a file, {d} a directory, {w} a bare file name.
"""

REFUSALS: dict[str, dict[str, str]] = {
    "send email": {
        "do": """
            email {f} to my boss
            send {f} to Anna by mail
            mail {f} to the whole team
            forward {f} to the accountant
            """,
        "other": """
            can {f} go out as an attachment to Bob?
            I need {f} in Maria's inbox
            """,
    },
    "check the weather": {
        "do": """
            tell me what the weather is like today
            check if I need an umbrella
            """,
        "other": """
            what's the weather in Lisbon?
            will it rain tomorrow?
            is it cold outside?
            """,
    },
    "compress files": {
        "do": """
            zip {d}
            compress {f}
            pack {d} into an archive
            make a zip out of {f}
            """,
        "other": """
            I need {d} as a tarball
            can {f} be squeezed into a zip file?
            """,
    },
    "unpack archives": {
        "do": """
            unzip the archive in {d}
            extract the tarball in {d}
            """,
    },
    "change permissions": {
        "do": """
            chmod 600 {f}
            make {f} executable
            change the owner of {f} to root
            make {f} read-only
            """,
        "other": """
            nobody else should be allowed to open {f}
            who has write access to {f}?
            """,
    },
    "print on paper": {
        "do": """
            send {f} to the office printer
            make two paper printouts of {f}
            """,
        "other": """
            I need {f} on paper, double sided
            """,
    },
    "translate": {
        "do": """
            translate {f} into French
            turn {f} into proper German
            """,
        "other": """
            what would {f} be in Spanish?
            I need an English translation of {f}
            """,
    },
    "convert formats": {
        "do": """
            convert {f} to pdf
            turn {f} into a spreadsheet
            export {f} as a slide deck
            """,
        "other": """
            can I have {f} as a proper Word document?
            """,
    },
    "play media": {
        "do": """
            play some music
            put on a relaxing playlist
            play the song in {f}
            """,
        "other": """
            can we listen to something nice?
            """,
    },
    "reach the internet": {
        "do": """
            download the latest release from the website
            upload {f} to the cloud
            fetch the page at example.com
            share {d} with a public link
            google the name of {w}
            sync {d} with my phone
            """,
        "other": """
            what's on the news today?
            who won the match last night?
            I want {f} on my website
            """,
    },
    "run programs": {
        "do": """
            run {f}
            execute the script {w}
            compile {f}
            start the server in {d}
            launch the app in {d}
            install the packages listed in {f}
            """,
        "other": """
            does the code in {d} pass its tests?
            """,
    },
    "use git": {
        "do": """
            commit {f}
            push {d} to github
            undo the last commit
            make a new branch for {w}
            """,
        "other": """
            who changed {f} last?
            """,
    },
    "do arithmetic": {
        "do": """
            calculate 15 percent of 240
            add up the numbers in {f}
            plot the numbers in {f}
            """,
        "other": """
            what's 17 times 23?
            what's the average of the values in {f}?
            """,
    },
    "chat": {
        "do": """
            tell me a joke
            write me a poem about the sea
            recommend a good book
            """,
        "other": """
            how are you today?
            what's the meaning of life?
            what's the capital of Norway?
            who are you?
            """,
    },
    "manage the calendar": {
        "do": """
            set an alarm for seven
            remind me to call the dentist
            add a meeting to my calendar for Monday
            book a table for two tonight
            """,
        "other": """
            what's on my schedule this week?
            """,
    },
    "make calls": {
        "do": """
            call my sister
            text Omar that I'm late
            """,
        "other": """
            can you ring the front desk?
            """,
    },
    "encrypt files": {
        "do": """
            encrypt {f}
            put a password on {d}
            lock {f} with a secret key
            """,
        "other": """
            {f} should be protected by a password
            """,
    },
    "restore deleted files": {
        "do": """
            bring back the file I deleted yesterday
            undo the last delete
            restore the previous version of {f}
            """,
        "other": """
            can I get last week's version of {f} back?
            """,
    },
    "see dates or owners": {
        "do": """
            tell me when {f} was last changed
            check who owns {f}
            """,
        "other": """
            when did I create {f}?
            which file here is the newest?
            """,
    },
    "judge or rewrite texts": {
        "do": """
            fix the spelling in {f}
            summarize {f}
            sort the lines of {f}
            proofread {f}
            make {f} sound more friendly
            """,
        "other": """
            is {f} any good?
            what do you think of {f}?
            """,
    },
    "compare files": {
        "do": """
            diff {f} against last week's backup
            merge {f} with the copy on the server
            """,
    },
    "make links": {
        "do": """
            create a symlink to {f}
            make a shortcut to {d} on my desktop
            """,
    },
    "manage the machine": {
        "do": """
            restart the computer
            turn off the wifi
            free up some memory
            update the system
            empty the recycle bin
            mount the usb drive
            kill the process that uses {f}
            """,
        "other": """
            how much battery is left?
            how much disk space do I have?
            """,
    },
    "handle pictures": {
        "do": """
            crop the picture in {d}
            take a screenshot
            scan the text out of the photo in {d}
            """,
        "other": """
            can the image in {d} be made brighter?
            """,
    },
    "tell the time": {
        "other": """
            what time is it?
            what's the date today?
            how many days are left until Friday?
            """,
    },
    "order things": {
        "do": """
            order a pizza
            buy two train tickets to Rome
            pay the bill in {f}
            """,
        "other": """
            I'd like a taxi at eight
            """,
    },
}
